"""Conditions that a key adds to the filter: limits of the column at the cursor. Never imports Textual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.runs_table.columns import Column, Value
from epochtop.tui.runs_table.filter.grammar import EVERYTHING, Both, Compare, Filter, FilterError, parse, show
from epochtop.tui.runs_table.filter.matching import Names

Limit = Literal[">=", "<=", "="]


def limit_of(runs: Sequence[RunDetails], column: Column, operator: Limit, now: float) -> float | None:
    """The limit that leaves out the lowest (`>=`) or the highest value (`<=`) of these runs; None if all are equal."""
    values = {value for run in runs if isinstance(value := column.value(run, now), float | int)}
    ordered = sorted((value for value in values if math.isfinite(value)), reverse=operator == "<=")
    return ordered[1] if len(ordered) > 1 else None


def limited(text: str, names: Names, column: Column, operator: Limit, value: Value) -> str:
    """A filter with one more condition, which replaces the one with the same column and operator. A filter with an error is
    replaced. Raises FilterError if the filter has no name for the column."""
    try:
        parsed = parse(text)
    except FilterError:
        parsed = EVERYTHING
    parts = parsed.parts if isinstance(parsed, Both) else (parsed,)
    others = [part for part in parts if not _is_about(part, names, column, operator)]
    return show(Both((*others, Compare(_name(names, column), operator, _text(value)))))


def _is_about(part: Filter, names: Names, column: Column, operator: Limit) -> bool:
    if not isinstance(part, Compare) or part.operator != operator:
        return False
    try:
        return names.column(part.name, 0).key == column.key
    except FilterError:
        return False


def _name(names: Names, column: Column) -> str:
    """The shortest name that means the column."""
    for name in (column.label, column.key.partition(":")[2]):
        try:
            if name and names.column(name, 0).key == column.key:
                return name
        except FilterError:
            continue
    return column.key


def _text(value: Value) -> str:
    """A value that reads back as itself."""
    if isinstance(value, float | int):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return "none" if value is None else value
