"""Which rows are trained on, which the best weights are judged by, and which are tested on.

The split does not depend on a run's seed, so that runs with different seeds are measured on the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.scaling import EVERY, Index
from epochtop.engine.protocol.spec import Invalid, RunSpec

SPLIT_SEED = 42
"""`random_state` of the test split; the published Iris runs use it."""
NONE = slice(0, 0)


@dataclass(frozen=True)
class SplitIndices:
    """Rows of a dataset by number; `test` is of its own test rows where it brings some."""

    train: Index
    validation: Index
    test: Index
    notes: tuple[str, ...] = ()


def parts_of(raw: RawDataset, spec: RunSpec) -> SplitIndices:
    """Cut a dataset as `spec` asks. Raises Invalid where a part would be empty."""
    if raw.kind == "text":
        return _in_order(raw, spec)
    notes: tuple[str, ...] = ()
    if raw.test is not None and spec.test_fraction != RunSpec().test_fraction:
        notes = (f"the dataset's own {len(raw.test[1]):,} test rows are used; test_fraction does not apply",)
    rest, test = (EVERY, EVERY) if raw.test is not None else _cut(len(raw.y), spec.test_fraction, "test_fraction")
    if not spec.validation_fraction:
        return SplitIndices(rest, NONE, test, notes)
    rows = np.arange(len(raw.y), dtype=np.int64) if isinstance(rest, slice) else rest
    labels = raw.y[rows] if raw.classes else None
    reason = _not_stratified(labels, raw.classes, spec.validation_fraction) if labels is not None else ""
    if reason:
        notes = (*notes, f"the validation rows are drawn without regard to classes: {reason}")
    stratify = None if reason else labels
    train, validation = _cut(len(rows), spec.validation_fraction, "validation_fraction", stratify)
    return SplitIndices(rows[train], rows[validation], test, notes)


def _in_order(raw: RawDataset, spec: RunSpec) -> SplitIndices:
    """A text is tested on its end and validated on what comes before that: neighboring rows are alike.

    Where it brings test rows, they are its end already, cut by characters.
    """
    end = len(raw.y)
    test: Index = EVERY
    if raw.test is None:
        end -= ceil(len(raw.y) * spec.test_fraction)
        test = slice(end, len(raw.y))
    start = end - ceil(end * spec.validation_fraction)
    if start < 1:
        field = "test_fraction" if end < 1 else "validation_fraction"
        raise _nothing_left(field, getattr(spec, field), len(raw.y))
    return SplitIndices(slice(0, start), slice(start, end), test)


def _cut(
    rows: int, fraction: float, field: str, stratify: npt.NDArray[Any] | None = None
) -> tuple[Index, npt.NDArray[np.int64] | slice]:
    """Numbers of the rows that stay and of those held out."""
    if fraction == 0.0:
        return EVERY, NONE
    from sklearn.model_selection import train_test_split

    numbers = np.arange(rows, dtype=np.int64)
    try:
        stay, held = train_test_split(numbers, test_size=fraction, random_state=SPLIT_SEED, stratify=stratify)
    except ValueError:
        raise _nothing_left(field, fraction, rows) from None
    if not len(stay) or not len(held):
        raise _nothing_left(field, fraction, rows)
    return stay, held


def _nothing_left(field: str, fraction: float, rows: int) -> Invalid:
    return Invalid(field, f"{fraction:g} of {rows} rows leaves no row on one side; use a value nearer to 0.2")


def _not_stratified(labels: npt.NDArray[Any], classes: tuple[str, ...], fraction: float) -> str:
    """Why the labels cannot be cut in equal shares; empty if they can."""
    present, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        return f"{classes[int(present[counts.argmin()])]!r} has one row only"
    held = ceil(fraction * len(labels))
    if min(held, len(labels) - held) < len(present):
        return f"{min(held, len(labels) - held)} rows are fewer than the {len(present)} classes"
    return ""
