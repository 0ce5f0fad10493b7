"""Labels from a column: names of classes, or numbers for a regression. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import LossName
from epochtop.engine.protocol.spec import Invalid

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
"""Texts that mean a missing value, in lower case."""
MOST_CLASSES = 100
"""Whole-number labels with more distinct values than this are a regression target."""


@dataclass(frozen=True)
class Labels:
    """Labels (rows,): int64 codes of `classes`, or float64 numbers without classes."""

    y: npt.NDArray[Any]
    classes: tuple[str, ...] = ()

    @property
    def loss(self) -> LossName:
        """The loss that suits these labels."""
        return "cross_entropy" if self.classes else "mean_squared_error"


def labels_of(column: npt.NDArray[Any] | Sequence[str], target: str) -> Labels:
    """Labels from a column of texts, numbers or booleans. Raises Invalid if there is only one class.

    Texts that are all numbers count as numbers. Whole numbers with at most 100 distinct values are classes.
    """
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiu":
        return _of_numbers(column.astype(np.float64), target)
    texts = [str(text) for text in column]
    numbers = as_numbers(texts)
    if numbers is not None:
        return _of_numbers(numbers, target)
    code_of: dict[str, int] = {}
    codes = [code_of.setdefault(text, len(code_of)) for text in texts]
    return of_names(tuple(code_of), np.array(codes, dtype=np.int64), target)


def of_names(names: Sequence[str], codes: npt.NDArray[Any], target: str) -> Labels:
    """Labels from codes into `names`, in any order; the classes are sorted. Raises Invalid if there is only one class."""
    if len(names) < 2:
        raise Invalid("target", f"column {target!r} has only one class ({names[0]!r}); it needs at least two")
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return Labels(y=place[codes], classes=tuple(names[code] for code in order))


def as_numbers(texts: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """The texts as finite numbers; None if one of them is not."""
    try:
        numbers = np.array([float(text) for text in texts], dtype=np.float64)
    except ValueError:
        return None
    return numbers if bool(np.isfinite(numbers).all()) else None


def _of_numbers(numbers: npt.NDArray[np.float64], target: str) -> Labels:
    if not bool((numbers == np.round(numbers)).all()):
        return Labels(y=numbers)
    values, codes = np.unique(numbers, return_inverse=True)
    if len(values) > MOST_CLASSES:
        return Labels(y=numbers)
    names = tuple(_class_name(float(value)) for value in values)
    if len(names) < 2:
        raise Invalid("target", f"column {target!r} has only one class ({names[0]!r}); it needs at least two")
    return Labels(y=codes.astype(np.int64), classes=names)


def _class_name(value: float) -> str:
    return str(int(value)) if abs(value) < 2**53 else repr(value)
