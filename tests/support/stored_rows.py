"""Experiments on rows as files store them: planted rows become structs, and measured structs become columns again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from epochtop.engine.lab.catalog import find
from epochtop.engine.lab.experiment import ExperimentContext, Findings
from epochtop.engine.lab.experiments import measurement_of
from epochtop.engine.lab.measurements import Measurement, Row, stored
from epochtop.engine.protocol.experiments import Verdict


class StoredRows:
    """An experiment, by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def measurements(self, rows: Sequence[Row]) -> list[Measurement]:
        """The structs of stored rows."""
        return find(self._name).measurements(rows)

    def conclude(self, rows: Sequence[Row], *others: Any, **more: Any) -> Verdict:
        """The verdict on stored rows; the other arguments are those of `Findings`."""
        return find(self._name).conclude(Findings(self.measurements(rows), *others, **more))

    def measure(self, context: ExperimentContext) -> Iterator[Row]:
        """Measured rows as files store them."""
        yield from map(stored, measurement_of(self._name)(context))
