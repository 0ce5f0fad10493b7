"""What a label column says: names of classes, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import LossName
from epochtop.engine.protocol.spec import Invalid

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
"""Texts that stand for a value that is not there."""
MOST_CLASSES = 100
"""Whole-number labels with more distinct values than this are a regression target."""


@dataclass(frozen=True)
class Labels:
    """`y` is int64 codes of `classes`, or float64 numbers with no classes; (rows,)."""

    y: npt.NDArray[Any]
    classes: tuple[str, ...] = ()

    @property
    def loss(self) -> LossName:
        """What such labels are trained with."""
        return "cross_entropy" if self.classes else "mean_squared_error"


def labels_of(column: npt.NDArray[Any] | Sequence[str], target: str) -> Labels:
    """Labels of a column of texts, numbers or truths. Raises Invalid where there is one class only.

    Texts that are all numbers count as numbers; numbers that are whole and of at most 100 values are classes.
    """
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiu":
        return _of_numbers(column.astype(np.float64), target)
    texts = [str(text) for text in column]
    numbers = as_numbers(texts)
    if numbers is not None:
        return _of_numbers(numbers, target)
    seen: dict[str, int] = {}
    codes = [seen.setdefault(text, len(seen)) for text in texts]
    return of_names(tuple(seen), np.array(codes, dtype=np.int64), target)


def of_names(names: Sequence[str], codes: npt.NDArray[Any], target: str) -> Labels:
    """Labels of codes into `names`, which may be in any order; the classes are sorted."""
    if len(names) < 2:
        raise Invalid("target", f"column {target!r} has one class only ({names[0]!r}); two are needed")
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return Labels(y=place[codes], classes=tuple(names[code] for code in order))


def as_numbers(texts: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """The texts as finite numbers, or None where one is not."""
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
    names = tuple(_shown(float(value)) for value in values)
    if len(names) < 2:
        raise Invalid("target", f"column {target!r} has one class only ({names[0]!r}); two are needed")
    return Labels(y=codes.astype(np.int64), classes=names)


def _shown(value: float) -> str:
    return str(int(value)) if abs(value) < 2**53 else repr(value)
