"""Labels from an array: classes, a number, several numbers, or several labels per row. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.arrays.features import type_and_shape
from epochtop.engine.data.dataset import LossName
from epochtop.engine.data.labels import labels_of
from epochtop.engine.protocol.datasets import Problem
from epochtop.engine.protocol.spec import Invalid

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Targets:
    """Labels as a raw dataset has them."""

    y: Array
    loss: LossName
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def targets_of(y: Array, name: str, problem: Problem) -> Targets:
    """Labels from `y`, (rows,) or (rows, targets). Raises Invalid.

    Rows of zeros and a single one are one-hot labels, that is classes. Other rows of zeros and ones are several labels.
    Everything else in two dimensions is several numbers.
    """
    if y.ndim == 1:
        if problem == "multi-label":
            raise Invalid("problem", f"{name} has one label per row; multi-label needs a column of 0 and 1 per label")
        labels = labels_of(y, name, problem)
        return Targets(labels.y, labels.loss, labels.classes, notes=labels.notes)
    return several_targets(y, [f"{name}{number}" for number in range(y.shape[1])], problem)


def several_targets(y: Array, names: Sequence[str], problem: Problem) -> Targets:
    """Labels from the columns `names` of `y`, (rows, targets), numbers or booleans. Raises Invalid."""
    zeros_and_ones = y.dtype.kind == "b" or bool(((y == 0) | (y == 1)).all())
    one_hot = zeros_and_ones and bool((y.sum(axis=1) == 1).all())
    if problem in ("auto", "classification") and one_hot:
        note = f"the labels are one-hot: {len(names)} classes, named by their column"
        return _of_classes(y, note)
    if problem in ("auto", "multi-label") and zeros_and_ones:
        note = f"rows have any number of the {len(names)} labels, so each label is predicted by itself (multi-label)"
        return Targets(y.astype(np.float32), "binary_cross_entropy", targets=tuple(names), notes=(note,))
    if problem in ("classification", "multi-label"):
        needed = "exactly one 1 in every row" if problem == "classification" else "0 and 1 only"
        raise Invalid(
            "problem", f"{problem} with {len(names)} columns of labels needs {needed}; choose another problem"
        )
    note = f"{len(names)} numbers are predicted per row"
    return Targets(y.astype(np.float64), "mean_squared_error", targets=tuple(names), notes=(note,))


def _of_classes(y: Array, note: str) -> Targets:
    codes = y.argmax(axis=1).astype(np.int64)
    return Targets(codes, "cross_entropy", tuple(map(str, range(y.shape[1]))), notes=(note,))


def label_array(where: str, y: Array) -> Array:
    """Labels as (rows,), or (rows, targets) of numbers: numbers, texts or booleans. Raises Invalid."""
    if y.ndim > 1 and y.size == len(y):
        y = y.reshape(-1)
    numbers = y.dtype.kind in "biuf"
    if not (numbers or y.dtype.kind in "US") or y.ndim > 2 or (y.ndim == 2 and not numbers) or y.ndim == 0:
        raise Invalid(
            "dataset",
            f"{where} is {type_and_shape(y)}; it must hold numbers or texts in the shape (rows,), or numbers in "
            "(rows, targets); other labels need a custom task",
        )
    if y.dtype.kind == "S":
        try:
            return np.char.decode(y, "utf-8")
        except UnicodeDecodeError:
            raise Invalid("dataset", f"{where} holds bytes that are not UTF-8") from None
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int(np.argwhere(~np.isfinite(y))[0][0])
        raise Invalid("dataset", f"{where}, row {row}: is not a finite number")
    return y


def joined(path: object, names: Sequence[str], labels: Sequence[Array]) -> Array:
    """The labels of all parts, so that a class has one code in all of them. Raises Invalid."""
    y = labels[0]
    for name, other in zip(names[1:], labels[1:], strict=True):
        if _sort_of(y) != _sort_of(other):
            raise Invalid(
                "dataset",
                f"{path}: {names[0]} is {type_and_shape(y)}, {name} is {type_and_shape(other)}; they must have the same "
                "type and shape",
            )
    return y if len(labels) == 1 else _concatenated(labels)


def _sort_of(y: Array) -> tuple[str, tuple[int, ...]]:
    """Whether labels are text, booleans or numbers, and the shape of a row."""
    return {"U": "text", "b": "booleans"}.get(y.dtype.kind, "numbers"), y.shape[1:]


def _concatenated(labels: Sequence[Array]) -> Array:
    """The labels in one array. NumPy joins int64 and uint64 to float64, which merges large numbers, so these become text."""
    together = np.concatenate(labels)
    if together.ndim == 1 and together.dtype.kind == "f" and all(y.dtype.kind in "iu" for y in labels):
        return np.concatenate([y.astype(str) for y in labels])
    return together
