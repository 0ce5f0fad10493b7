"""A table as a raw dataset: labels, features in their kinds, one matrix of raw values, and rows that are left out.

A table of numbers without missing values becomes the matrix without a copy. Must never fit anything, because the rows are
not split yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.kinds import Feature, LeftOut, feature_of
from epochtop.engine.data.columns.row_numbers import is_identifier
from epochtop.engine.data.columns.selection import ColumnSelection
from epochtop.engine.data.columns.targets import Targets, labels_of_columns
from epochtop.engine.data.columns.times import seconds_of
from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.tables.column import (
    Column,
    NumberColumn,
    Table,
    TextColumn,
    TimeColumn,
    is_missing,
    values_of,
)
from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.quantities import plural
from epochtop.engine.protocol.spec import Invalid

BLOCK_VALUES = 2**18
COUNTED_VALUES = 5_000_000
"""Distinct numbers are counted in tables of at most this many cells."""

Mask = npt.NDArray[np.bool_]
HeldOut = Mapping[Literal["validation", "test"], slice]
"""Fixed rows of a table: where those of each part are."""
NOTHING_HELD_OUT: HeldOut = {}


def dataset_of(table: Table, selection: ColumnSelection, held_out: HeldOut = NOTHING_HELD_OUT) -> RawDataset:
    """The raw dataset of a table that was read with `selection`. Raises Invalid with the line or the column.

    `held_out` are the fixed validation and test rows of the table, which follow its training rows.
    """
    if len(table) < 2:
        raise Invalid("dataset", f"{table.source} has {len(table)} rows; it needs at least two")
    targets = labels_of_columns([table.column(name) for name in selection.targets], selection.problem)
    columns = [column for column in table.columns if column.name not in selection.targets]
    gaps = _gaps_of(table)
    features, left_out = _features(columns, selection, gaps)
    rows, notes = _rows(table, features, targets, selection)
    _check_finite(table, features, gaps)
    plain = all(feature.encoding.kind == "number" and not feature.missing for feature in features)
    is_rounded = all(_is_single(feature) for feature in features if feature.kind == "number")
    selected = rows[targets.present]
    several = len(selection.targets) > 1
    x, y = _matrix(table, features, rows), targets.y if selected.all() else targets.y[selected]
    parts, unused = _parts(rows, held_out)
    return RawDataset(
        kind="table",
        x=x[parts["train"]],
        y=y[parts["train"]],
        loss=targets.loss,
        classes=targets.classes,
        columns=tuple(feature.column.name for feature in features),
        target="" if several else selection.targets[0],
        targets=targets.targets,
        validation=(x[parts["validation"]], y[parts["validation"]]) if "validation" in parts else None,
        test=(x[parts["test"]], y[parts["test"]]) if "test" in parts else None,
        notes=(*table.notes, *targets.notes, *notes, *unused),
        encodings=() if plain else tuple(feature.encoding for feature in features),
        is_rounded=is_rounded and any(feature.kind == "number" for feature in features),
        column_facts=_facts(table, features, left_out, targets, selection),
    )


# --- features ------------------------------------------------------------------------------------------------


def _features(
    columns: Sequence[Column], selection: ColumnSelection, gaps: _Gaps
) -> tuple[list[Feature], list[LeftOut]]:
    inferred = [
        _identifier(column, selection)
        or feature_of(column, selection.kinds.get(column.name), gaps.missing.get(column.name))
        for column in columns
    ]
    features = [one for one in inferred if isinstance(one, Feature)]
    left_out = [one for one in inferred if isinstance(one, LeftOut)]
    if not features:
        reasons = "; ".join(f"{one.name!r}: {one.kind}, {one.reason}" for one in left_out[:4])
        raise Invalid("dataset", f"no feature column is left ({reasons}); set the kind of one with kinds")
    return features, left_out


def _identifier(column: Column, selection: ColumnSelection) -> LeftOut | None:
    """A column of numbers that only identifies the rows, unless the user asked for it."""
    is_chosen = column.name in selection.kinds or column.name in selection.named
    if is_chosen or not isinstance(column, NumberColumn) or not is_identifier(column.name, column.values):
        return None
    return LeftOut(column.name, "identifier", "it numbers the rows", 0, len(column.values))


def _is_single(feature: Feature) -> bool:
    return isinstance(feature.column, NumberColumn) and feature.column.values.dtype == np.float32


@dataclass(frozen=True)
class _Gaps:
    """What the numbers of a table lack, by name of the column."""

    missing: dict[str, int]
    """Rows without a value."""
    infinite: dict[str, int]
    """The first row with an infinite value."""


def _gaps_of(table: Table) -> _Gaps:
    """Count in one pass over the matrix of the table, because a column of it is slow to read by itself."""
    gaps = _Gaps({}, {})
    if table.numbers is not None:
        _count(table.numbers, table.number_names, gaps)
    for column in table.columns:
        if isinstance(column, NumberColumn) and column.name not in table.number_names:
            _count(column.values[:, None], (column.name,), gaps)
    return gaps


def _count(matrix: npt.NDArray[Any], names: Sequence[str], gaps: _Gaps) -> None:
    """Add what the columns of a matrix (rows, names) lack."""
    missing, size = np.zeros(len(names), dtype=np.int64), max(1, BLOCK_VALUES // max(1, len(names)))
    for start in range(0, len(matrix) if matrix.dtype.kind == "f" else 0, size):
        block = matrix[start : start + size]
        if np.isfinite(block).all():
            continue
        missing += np.isnan(block).sum(axis=0)
        for row, place in np.argwhere(np.isinf(block)):
            gaps.infinite.setdefault(names[place], start + int(row))
    gaps.missing.update(zip(names, missing.tolist(), strict=True))


def _check_finite(table: Table, features: Sequence[Feature], gaps: _Gaps) -> None:
    for feature in features:
        column, row = feature.column, gaps.infinite.get(feature.column.name)
        if isinstance(column, NumberColumn) and row is not None:
            value = f"column {column.name!r}: {column.values[row]} is not a finite number; correct it"
            raise Invalid("dataset", f"{table.where(row)}, {value}")


# --- rows ----------------------------------------------------------------------------------------------------


def _rows(
    table: Table, features: Sequence[Feature], targets: Targets, selection: ColumnSelection
) -> tuple[Mask, tuple[str, ...]]:
    """Which rows of the table are used, and notes on those that are not. Raises Invalid if missing values are refused."""
    if selection.missing == "fill":
        return targets.present, ()
    gaps = [(feature.column.name, is_missing(feature.column)) for feature in features if feature.missing]
    if selection.missing == "refuse":
        gaps += [(name, ~targets.present) for name in selection.targets[:1]]
        for name, gap in gaps:
            if gap.any():
                where = table.where(int(gap.argmax()))
                raise Invalid(
                    "missing", f"{where}, column {name!r}: the value is missing; fill it in, or use fill or drop"
                )
        return targets.present, ()
    rows = targets.present & ~np.logical_or.reduce([gap for _, gap in gaps]) if gaps else targets.present
    dropped = int(targets.present.sum() - rows.sum())
    if rows.sum() < 2:
        raise Invalid("missing", f"{int(rows.sum())} rows have no missing value; use fill, or leave columns out")
    return rows, (
        f"{plural(dropped, 'row')} with missing values {'is' if dropped == 1 else 'are'} left out",
    ) if dropped else ()


def _parts(rows: Mask, held_out: HeldOut) -> tuple[dict[str, slice], tuple[str, ...]]:
    """Where each part is in the rows that are used, and notes on parts that have none. Raises Invalid without training rows."""
    places = {part: slice(*(int(rows[:end].sum()) for end in (at.start, at.stop))) for part, at in held_out.items()}
    parts: dict[str, slice] = {part: place for part, place in places.items() if place.start < place.stop}
    trained = min((place.start for place in places.values()), default=int(rows.sum()))
    if trained < 2:
        raise Invalid("dataset", f"only {trained} training rows can be used; at least two are needed")
    unused = tuple(f"no {part} row has a label; they are not used" for part in places if part not in parts)
    return {"train": slice(0, trained), **parts}, unused


def _matrix(table: Table, features: Sequence[Feature], rows: Mask) -> npt.NDArray[Any]:
    """Raw values (rows, columns): numbers, indices of categories, or seconds; the table's own matrix if it has just these."""
    names = tuple(feature.column.name for feature in features)
    if table.numbers is not None and table.number_names == names and rows.all() and _are_views(table, features):
        return table.numbers
    columns = [raw_values(feature.column) for feature in features]
    x = np.empty((int(rows.sum()), len(columns)), dtype=_type_of(features, columns))
    for number, values in enumerate(columns):
        x[:, number] = values if rows.all() else values[rows]
    return x


def _are_views(table: Table, features: Sequence[Feature]) -> bool:
    assert table.numbers is not None
    return all(np.shares_memory(values_of(feature.column), table.numbers) for feature in features)


def _type_of(features: Sequence[Feature], columns: Sequence[npt.NDArray[Any]]) -> Any:
    """float32 if that holds every value as it was read, else float64."""
    if any(feature.kind == "time" for feature in features):
        return np.float64
    numbers = [feature for feature in features if isinstance(feature.column, NumberColumn)]
    categories = max((len(feature.encoding.categories) for feature in features), default=0)
    return np.float32 if numbers and all(map(_is_single, numbers)) and categories < 2**24 else np.float64


def raw_values(column: Column) -> npt.NDArray[Any]:
    """One number per row: the value, the index of the text, or seconds since 1970; NaN is missing."""
    if isinstance(column, TimeColumn):
        return seconds_of(column.values)
    if isinstance(column, TextColumn):
        return np.where(column.codes < 0, np.nan, column.codes)
    return column.values


# --- what is said about them ---------------------------------------------------------------------------------


def _facts(
    table: Table, features: Sequence[Feature], left_out: Sequence[LeftOut], targets: Targets, selection: ColumnSelection
) -> tuple[ColumnFact, ...]:
    """Facts of all columns in the order of the table; those that the user skipped last."""
    count_numbers = len(table) * len(features) <= COUNTED_VALUES
    facts = {fact.name: fact for fact in targets.facts}
    facts |= {feature.column.name: _feature_fact(feature, count_numbers) for feature in features}
    for one in left_out:
        facts[one.name] = ColumnFact(
            name=one.name,
            kind=one.kind,
            missing=one.missing,
            distinct=one.distinct,
            treatment=f"left out: {one.reason}",
        )
    skipped = [
        ColumnFact(name=name, kind="skipped", treatment="left out by the settings")
        for name in selection.skipped
        if name not in facts
    ]
    return (*(facts[name] for name in table.names if name in facts), *skipped)


def _feature_fact(feature: Feature, count_numbers: bool) -> ColumnFact:
    column, distinct = feature.column, feature.distinct
    if distinct is None and count_numbers:
        distinct = len(np.unique(values_of(column))) - (feature.missing > 0)
    return ColumnFact(
        name=column.name, kind=feature.kind, missing=feature.missing, distinct=distinct, treatment=feature.note
    )
