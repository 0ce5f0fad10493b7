"""Labels from the target columns of a table: one column of classes or numbers, or several columns. Rows without a label are
marked. Must never look at features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.kinds import texts_with_rows
from epochtop.engine.data.columns.times import DAY_S, seconds_of, time_format, times_of
from epochtop.engine.data.dataset import LossName
from epochtop.engine.data.facts import label_fact
from epochtop.engine.data.labels import MISSING, Labels, labels_of, of_texts
from epochtop.engine.data.number_text import as_numbers, is_finite
from epochtop.engine.data.tables.column import Column, NumberColumn, TextColumn, TimeColumn, is_missing
from epochtop.engine.protocol.datasets import ColumnFact, Problem
from epochtop.engine.protocol.quantities import plural
from epochtop.engine.protocol.spec import Invalid

CLASS_TEXTS = ("-", "na", "none")
"""Spellings of a missing value that are classes in a column of texts, in lower case."""
YES, NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")
"""Texts of a label that a row has or has not, in lower case."""


@dataclass(frozen=True)
class Targets:
    """Labels of the rows that have all of them."""

    present: npt.NDArray[np.bool_]
    """Which rows of the table have labels (rows,)."""
    y: npt.NDArray[Any]
    """Their labels: int64 codes of `classes`, float64 numbers, or float64 (rows, targets)."""
    loss: LossName
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    """Names of several targets; empty for one."""
    notes: tuple[str, ...] = ()
    facts: tuple[ColumnFact, ...] = ()


def labels_of_columns(columns: Sequence[Column], problem: Problem) -> Targets:
    """Labels from one target column or several. Raises Invalid if they do not suit `problem`."""
    clean = [_without_missing_texts(column) for column in columns]
    missing = [is_missing(column) for column in clean]
    present = ~np.logical_or.reduce(missing)
    names = ", ".join(repr(column.name) for column in columns)
    if not present.any():
        raise Invalid("target", f"no row has a label in {names}")
    rows = [_selected(column, present) for column in clean]
    several = len(rows) > 1 or problem == "multi-label"
    result = _several(rows, present, problem) if several else _single(rows[0], present, problem)
    facts = tuple(_fact(row, int(gap.sum()), result) for row, gap in zip(rows, missing, strict=True))
    gaps = int((~present).sum())
    verb = "is" if gaps == 1 else "are"
    note = (f"{plural(gaps, 'row')} without a label in {names} {verb} left out",) if gaps else ()
    return replace(result, notes=(*note, *result.notes), facts=facts)


def _single(column: Column, present: npt.NDArray[np.bool_], problem: Problem) -> Targets:
    labels = _labels(column, problem)
    return Targets(present, labels.y, labels.loss, labels.classes, notes=labels.notes)


def _labels(column: Column, problem: Problem) -> Labels:
    if isinstance(column, NumberColumn):
        values = column.values if column.values.dtype.kind in "fiu" else column.values.astype(str).tolist()
        if column.values.dtype.kind == "f" and not np.isfinite(column.values).all():
            raise Invalid("target", f"column {column.name!r} has infinite values; correct them or leave their rows out")
        return labels_of(values, column.name, problem)
    days = _days(column, problem)
    if days is not None:
        return Labels(days, notes=(f"target {column.name!r}: dates are predicted as days since 1970",))
    assert isinstance(column, TextColumn)
    return of_texts(column.texts, column.codes, column.name, problem, column.numbers)


def _days(column: Column, problem: Problem) -> npt.NDArray[np.float64] | None:
    """Times as days since 1970; None for texts that are not times, and for classes."""
    if isinstance(column, TimeColumn):
        if problem == "classification":
            raise Invalid("problem", f"column {column.name!r} holds times; predict them with problem regression")
        return np.asarray(seconds_of(column.values) / DAY_S)
    if not isinstance(column, TextColumn) or problem == "classification":
        return None
    name = time_format(column.texts)
    return None if name is None else np.asarray((seconds_of(times_of(column.texts, name)) / DAY_S)[column.codes])


# --- several targets -----------------------------------------------------------------------------------------


def _several(columns: Sequence[Column], present: npt.NDArray[np.bool_], problem: Problem) -> Targets:
    names = tuple(column.name for column in columns)
    if problem == "classification":
        raise Invalid(
            "problem", f"{len(names)} targets are numbers (regression) or labels (multi-label), not one class"
        )
    truths = [_truths(column) for column in columns]
    doubtful = next((name for name, truth in zip(names, truths, strict=True) if truth is None), None)
    if problem == "multi-label" and doubtful is not None:
        raise Invalid(
            "problem", f"a label is 0 or 1, true or false, yes or no, but column {doubtful!r} holds other values"
        )
    if doubtful is None and problem != "regression":
        y = np.column_stack([truth for truth in truths if truth is not None])
        return Targets(present, y, "binary_cross_entropy", targets=names)
    numbers = np.column_stack([_numbers(column) for column in columns])
    return Targets(present, numbers, "mean_squared_error", targets=names)


def _truths(column: Column) -> npt.NDArray[np.float64] | None:
    """A column of labels as 0 and 1; None if it holds anything else."""
    if isinstance(column, TimeColumn):
        return None
    if isinstance(column, NumberColumn):
        values = column.values.astype(np.float64)
        return values if bool(np.isin(values, (0.0, 1.0)).all()) else None
    texts = [text.lower() for text in column.texts]
    if not set(texts) <= {*YES, *NO}:
        return None
    return np.array([float(text in YES) for text in texts])[column.codes]


def _numbers(column: Column) -> npt.NDArray[np.float64]:
    if isinstance(column, TextColumn):
        numbers = column.numbers if column.numbers is not None else as_numbers(column.texts)
        if numbers is None:
            text = next(text for text in column.texts if not is_finite(text))
            raise Invalid(
                "target",
                f"column {column.name!r} holds text ({text!r}); several targets are numbers, or yes-or-no labels",
            )
        return np.asarray(numbers[column.codes])
    labels = _labels(column, "regression")
    return np.asarray(labels.y, dtype=np.float64)


# --- missing labels ------------------------------------------------------------------------------------------


def _without_missing_texts(column: Column) -> Column:
    """The column in which spellings of missing values are missing; some of them are classes among other texts."""
    if not isinstance(column, TextColumn):
        return column
    is_gap = np.array([text.lower() in MISSING for text in column.texts], dtype=bool)
    others = [text for text, gap in zip(column.texts, is_gap, strict=True) if not gap]
    if column.numbers is None and as_numbers(others) is None:
        is_gap = np.array([text.lower() in MISSING and text.lower() not in CLASS_TEXTS for text in column.texts])
    if column.numbers is not None:
        is_gap = np.isnan(column.numbers)
    if not is_gap.any():
        return column
    codes = np.where(np.append(is_gap, True)[column.codes], -1, column.codes)
    return replace(column, codes=np.asarray(codes, dtype=np.int32))


def _selected(column: Column, present: npt.NDArray[np.bool_]) -> Column:
    """The rows that have all labels; texts without rows are forgotten."""
    if isinstance(column, TextColumn):
        rows = TextColumn(column.name, column.codes[present], column.texts)
        used = texts_with_rows(rows)
        if column.numbers is None:
            return used
        number_of = dict(zip(column.texts, column.numbers.tolist(), strict=True))
        return replace(used, numbers=np.array([number_of[text] for text in used.texts]))
    if present.all():
        return column
    return replace(column, values=column.values[present])


def _fact(column: Column, missing: int, result: Targets) -> ColumnFact:
    distinct = len(column.texts) if isinstance(column, TextColumn) else len(result.classes) or None
    return label_fact(column.name, result.loss, result.classes, missing, distinct)
