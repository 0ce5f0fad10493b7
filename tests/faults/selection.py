"""Which rows of a table of faults are tried: all with EPOCHTOP_FAULTS=all, as `make faults` sets it, else a selection.

Tests note what a fault led to; `make faults` counts it (see `tests/faults/conftest.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import pytest

EVERYTHING = os.environ.get("EPOCHTOP_FAULTS") == "all"


class Note(Protocol):
    """Notes what the fault of a test led to."""

    def __call__(self, result: str, amount: int | None = None) -> None:
        """`result` is counted; of an `amount`, the campaign prints the largest."""


def rows(table: Iterable[Sequence[object]], in_ci: Iterable[Sequence[object]]) -> list[pytest.ParameterSet]:  # type: ignore[name-defined]
    """The rows of `table` to try, each with an id that names its values. Without EPOCHTOP_FAULTS, those of `in_ci`."""
    chosen = [tuple(row) for row in (table if EVERYTHING else in_ci)]
    return [pytest.param(*row, id=" × ".join(map(_name, row))) for row in chosen]


def _name(value: object) -> str:
    return getattr(value, "__name__", str(value)).replace("_", " ").strip()
