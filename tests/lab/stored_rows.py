"""Experiments on rows as files store them: planted rows become structs, and measured structs become columns again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec

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
        """The structs of planted rows, which may leave out columns that have no part in the verdict."""
        experiment = find(self._name)
        kinds = {kind.__struct_config__.tag: kind for kind in experiment.kinds}
        return experiment.measurements([{**_blank(kinds[str(row["kind"])]), **row} for row in rows])

    def conclude(self, rows: Sequence[Row], *others: Any, **more: Any) -> Verdict:
        """The verdict on stored rows; the other arguments are those of `Findings`."""
        return find(self._name).conclude(Findings(self.measurements(rows), *others, **more))

    def measure(self, context: ExperimentContext) -> Iterator[Row]:
        """Measured rows as files store them."""
        yield from map(stored, measurement_of(self._name)(context))


@cache
def _blank(kind: type[Measurement]) -> Row:
    """A value for every column that has no default."""
    hints = get_type_hints(kind)
    required = [field for field in msgspec.structs.fields(kind) if field.required]
    return {field.encode_name: _blank_value(hints[field.name]) for field in required}


def _blank_value(hint: Any) -> Any:
    return None if type(None) in get_args(hint) else hint()
