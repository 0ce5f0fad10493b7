"""Labels from a column: classes, or numbers for a regression. A class is named by its text. Never imports torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import LossName
from epochtop.engine.data.number_text import as_numbers, is_padded
from epochtop.engine.protocol.datasets import Problem
from epochtop.engine.protocol.spec import Invalid

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
"""Texts that mean a missing value, in lower case."""
FEW_VALUES, ROWS_PER_VALUE = 20, 5
"""Whole numbers with at most this many distinct values, and at least this many rows per value, are classes."""
MOST_CLASSES, ROWS_PER_CODE = 100, 2
"""So are the codes 0, 1, 2, … or 1, 2, 3, … without a gap, up to this many, with this many rows per code."""
LARGEST_EXACT = 2**53
"""From here on, float64 cannot tell neighboring whole numbers apart."""


@dataclass(frozen=True)
class Labels:
    """Labels (rows,): int64 codes of `classes`, or float64 numbers without classes."""

    y: npt.NDArray[Any]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was decided about the column, one sentence each."""

    @property
    def loss(self) -> LossName:
        """The loss that suits these labels."""
        return "cross_entropy" if self.classes else "mean_squared_error"


def labels_of(column: npt.NDArray[Any] | Sequence[Any], target: str, problem: Problem = "auto") -> Labels:
    """Labels from a column of texts, numbers or booleans. Raises Invalid.

    `auto` makes text classes, and decides by :func:`are_codes` about whole numbers. Other numbers are a regression.
    """
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiu":
        return _of_array(column, target, problem)
    code_of: dict[str, int] = {}
    codes = [code_of.setdefault(str(text), len(code_of)) for text in column]
    return of_texts(tuple(code_of), np.array(codes, dtype=np.int64), target, problem)


def of_texts(
    names: Sequence[str],
    codes: npt.NDArray[Any],
    target: str,
    problem: Problem = "auto",
    numbers: npt.NDArray[np.float64] | None = None,
) -> Labels:
    """Labels from codes into distinct texts, in any order. Raises Invalid if the texts do not suit `problem`.

    `numbers` are the values of the texts where a file writes numbers in its own way.
    """
    if numbers is None:
        numbers = as_numbers(names)
    if numbers is None:
        if problem == "regression":
            text = next(name for name in names if as_numbers([name]) is None)
            raise Invalid("problem", f"column {target!r} holds text ({text!r}), but a regression needs numbers")
        return of_names(names, codes, target)
    if problem == "auto" and any(map(is_padded, names)):
        note = (
            f"target {target!r}: numbers with leading zeros are classes; set problem to regression to predict numbers"
        )
        return _noted(_of_values(names, numbers, codes, target, "classification"), note)
    return _of_values(names, numbers, codes, target, problem)


def of_names(
    names: Sequence[str], codes: npt.NDArray[Any], target: str, numbers: npt.NDArray[Any] | None = None
) -> Labels:
    """Classes from codes into `names`, in any order. They are sorted by `numbers`, if there are some, then by name.

    Raises Invalid if there is only one class.
    """
    if len(names) < 2:
        raise Invalid("target", f"column {target!r} has only one class ({names[0]!r}); it needs at least two")
    values = np.zeros(len(names)) if numbers is None else numbers
    order = sorted(range(len(names)), key=lambda code: (values[code], names[code]))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return Labels(y=place[codes], classes=tuple(names[code] for code in order))


def are_codes(values: npt.NDArray[Any], rows: int) -> bool:
    """Whether distinct whole numbers in a column of `rows` rows are more likely codes of classes than quantities.

    They are if there are two of them, few with many rows each, or 0, 1, 2, … or 1, 2, 3, … without a gap.
    """
    count = len(values)
    if count <= 2 or (count <= FEW_VALUES and rows >= ROWS_PER_VALUE * count):
        return True
    if count > MOST_CLASSES or rows < ROWS_PER_CODE * count:
        return False
    lowest = float(values.min())
    return lowest in (0.0, 1.0) and float(values.max()) - lowest == count - 1


def _of_array(column: npt.NDArray[Any], target: str, problem: Problem) -> Labels:
    if problem == "regression" or (problem == "auto" and not bool((column == np.round(column)).all())):
        return Labels(y=column.astype(np.float64))
    values, codes = np.unique(column, return_inverse=True)
    numbers = values.astype(np.float64)
    labels = _of_values(tuple(map(class_name, values)), numbers, codes, target, problem)
    if labels.classes and column.dtype.kind == "f" and float(np.abs(numbers).max()) >= LARGEST_EXACT:
        raise Invalid(
            "target",
            f"column {target!r} stores classes from 2**53 on as floating-point numbers, which merges neighbors; store "
            "them as text or integers",
        )
    return labels


def _of_values(
    names: Sequence[str], numbers: npt.NDArray[np.float64], codes: npt.NDArray[Any], target: str, problem: Problem
) -> Labels:
    """Labels from codes into distinct `names`, whose values are `numbers`."""
    if problem == "regression":
        return Labels(y=numbers[codes])
    if problem == "classification":
        return _noted(of_names(names, codes, target, numbers), *_same_numbers(names, numbers))
    if not bool((numbers == np.round(numbers)).all()):
        return Labels(y=numbers[codes])
    count = f"target {target!r}: {len(names):,} distinct whole numbers in {len(codes):,} rows"
    if not are_codes(numbers, len(codes)):
        note = f"{count} make this a regression; set problem to classification to predict classes"
        return Labels(y=numbers[codes], notes=(note,))
    note = f"{count} make this a classification; set problem to regression to predict numbers"
    return _noted(_of_values(names, numbers, codes, target, "classification"), note)


def _noted(labels: Labels, *notes: str) -> Labels:
    return Labels(labels.y, labels.classes, (*notes, *labels.notes))


def _same_numbers(names: Sequence[str], numbers: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """A note about classes that are the same number, written differently."""
    names_of = defaultdict[float, list[str]](list)
    for name, number in zip(names, numbers.tolist(), strict=True):
        if abs(number) < LARGEST_EXACT:
            names_of[number].append(name)
    twins = next((sorted(texts) for texts in names_of.values() if len(texts) > 1), None)
    if twins is None:
        return ()
    return (f"the classes {' and '.join(map(repr, twins))} are the same number, written differently",)


def class_name(value: Any) -> str:
    """The shortest text of a number; whole numbers have no point."""
    return str(int(value)) if value == np.round(value) else str(value)
