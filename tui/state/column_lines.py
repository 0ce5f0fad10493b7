"""What a run does with the columns of a table, as lines of text. No widgets."""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.quantities import plural

HEADINGS = ("column", "kind", "missing", "distinct", "treatment")
LONGEST_NAME = 24
UNREMARKABLE = ("label", "image", "series")
"""Kinds that are worth a line of the log only if values are missing."""
MOST_COLUMNS = 200
"""Columns of the largest table of columns."""


def table_of_columns(facts: Sequence[ColumnFact]) -> list[str]:
    """An aligned table with a heading; empty without facts."""
    if not facts:
        return []
    rows = [HEADINGS, *map(_cells, facts[:MOST_COLUMNS])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADINGS))]
    lines = [_aligned(row, widths) for row in rows]
    rest = len(facts) - MOST_COLUMNS
    return [*lines, f"… and {plural(rest, 'more column')}"] if rest > 0 else lines


def notable_columns(facts: Sequence[ColumnFact]) -> list[str]:
    """The same table without numbers that have no missing values, which the last line counts; empty if all are such."""
    plain = [fact for fact in facts if fact.kind == "number" and not fact.missing]
    notable = [fact for fact in facts if fact not in plain]
    if all(fact.kind in UNREMARKABLE and not fact.missing for fact in notable):
        return []
    return [*table_of_columns(notable), *_rest(plain)]


def heading(facts: Sequence[ColumnFact]) -> str:
    """What the facts are about: `columns` of a table, or `data` of other kinds."""
    return "data" if any(fact.kind in ("image", "series") for fact in facts) else "columns"


def short_lines(facts: Sequence[ColumnFact]) -> list[str]:
    """One line per notable column for a narrow place: `Age (number): 8 missing, …`."""
    plain = [fact for fact in facts if fact.kind == "number" and not fact.missing]
    lines = [_short(fact) for fact in facts[:MOST_COLUMNS] if fact not in plain]
    return [*lines, *_rest(plain)]


def _rest(plain: Sequence[ColumnFact]) -> list[str]:
    """The number of columns that have no line of their own, and what is done to them."""
    if not plain:
        return []
    treatments = ", ".join(dict.fromkeys(fact.treatment for fact in plain if fact.treatment))
    return [f"{plural(len(plain), 'other column')} of numbers without missing values: {treatments}".removesuffix(": ")]


def _short(fact: ColumnFact) -> str:
    gaps = f"{fact.missing:,} missing; " if fact.missing else ""
    return f"{_name(fact)} ({fact.kind}): {gaps}{fact.treatment}"


def _cells(fact: ColumnFact) -> tuple[str, ...]:
    distinct = "—" if fact.distinct is None else f"{fact.distinct:,}"
    return _name(fact), fact.kind, f"{fact.missing:,}", distinct, fact.treatment


def _name(fact: ColumnFact) -> str:
    return fact.name if len(fact.name) <= LONGEST_NAME else f"{fact.name[: LONGEST_NAME - 1]}…"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, kind, missing, distinct, treatment = row
    left = f"{name:<{widths[0]}}  {kind:<{widths[1]}}"
    return f"{left}  {missing:>{widths[2]}}  {distinct:>{widths[3]}}  {treatment}".rstrip()
