"""Splitting a dataset into training, validation and test rows.

The split does not depend on the run's seed, so that runs with different seeds are tested on the same rows. Never imports
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.permutation import MOST_LISTED_ROWS, Permutation, ShuffledSpan
from epochtop.engine.data.scaling import ALL_ROWS, Index
from epochtop.engine.protocol.spec import Invalid, RunSpec

SPLIT_SEED = 42
"""`random_state` of the test split; the published Iris runs use it."""
NO_ROWS = slice(0, 0)
ListedIndex = npt.NDArray[np.int64] | slice
"""Selection of few rows."""


@dataclass(frozen=True)
class SplitIndices:
    """Row numbers of each part. `test` and `validation` select from the dataset's fixed rows if it has some."""

    train: Index
    validation: Index
    test: Index
    notes: tuple[str, ...] = ()


def split_indices(raw: RawDataset, spec: RunSpec) -> SplitIndices:
    """Split a dataset as `spec` says. Raises Invalid if a part would be empty."""
    if raw.kind == "text":
        return _in_order(raw, spec)
    if len(raw.y) > MOST_LISTED_ROWS:
        return _computed(raw, spec)
    notes = _fixed_row_notes(raw, spec)
    rest, test = (ALL_ROWS, ALL_ROWS) if raw.test is not None else _cut(len(raw.y), spec.test_fraction, "test_fraction")
    if raw.validation is not None:
        return SplitIndices(rest, ALL_ROWS, test, notes)
    if not spec.validation_fraction:
        return SplitIndices(rest, NO_ROWS, test, notes)
    rows = np.arange(len(raw.y), dtype=np.int64) if isinstance(rest, slice) else rest
    labels = raw.y[rows] if raw.classes else None
    reason = _why_not_stratified(labels, raw.classes, spec.validation_fraction) if labels is not None else ""
    if reason:
        notes = (*notes, f"the validation rows are not stratified by class: {reason}")
    stratify = None if reason else labels
    train, validation = _cut(len(rows), spec.validation_fraction, "validation_fraction", stratify)
    return SplitIndices(rows[train], rows[validation], test, notes)


def _fixed_row_notes(raw: RawDataset, spec: RunSpec) -> tuple[str, ...]:
    """What is ignored because the dataset has fixed rows."""
    notes: list[str] = []
    if raw.test is not None and spec.test_fraction != RunSpec().test_fraction:
        notes.append(f"the dataset has {len(raw.test[1]):,} fixed test rows; test_fraction is ignored")
    if raw.validation is not None and spec.validation_fraction:
        notes.append(
            f"the dataset has {len(raw.validation[1]):,} fixed validation rows; validation_fraction is ignored"
        )
    return tuple(notes)


def _computed(raw: RawDataset, spec: RunSpec) -> SplitIndices:
    """Split more than MOST_LISTED_ROWS rows without lists of row numbers, and without stratifying by class."""
    count = len(raw.y)
    rows = Permutation(count, SPLIT_SEED)
    tested = 0 if raw.test is not None else ceil(count * spec.test_fraction)
    validated = 0 if raw.validation is not None else ceil((count - tested) * spec.validation_fraction)
    held_out = tested + validated
    return SplitIndices(
        ShuffledSpan(rows, held_out, count) if held_out else ALL_ROWS,
        ALL_ROWS if raw.validation is not None else ShuffledSpan(rows, tested, held_out),
        ALL_ROWS if raw.test is not None else ShuffledSpan(rows, 0, tested),
        _fixed_row_notes(raw, spec),
    )


def _in_order(raw: RawDataset, spec: RunSpec) -> SplitIndices:
    """Split a text in order, test rows last and validation rows before them, because neighboring rows are similar.

    Fixed test rows are already its end, cut by characters.
    """
    end = len(raw.y)
    test: Index = ALL_ROWS
    if raw.test is None:
        end -= ceil(len(raw.y) * spec.test_fraction)
        test = slice(end, len(raw.y))
    start = end - ceil(end * spec.validation_fraction)
    if start < 1:
        field = "test_fraction" if end < 1 else "validation_fraction"
        raise _empty_part(field, getattr(spec, field), len(raw.y))
    return SplitIndices(slice(0, start), slice(start, end), test)


def _cut(
    rows: int, fraction: float, field: str, stratify: npt.NDArray[Any] | None = None
) -> tuple[ListedIndex, ListedIndex]:
    """Numbers of the remaining rows and of the rows held out. Raises Invalid if either is empty."""
    if fraction == 0.0:
        return ALL_ROWS, NO_ROWS
    from sklearn.model_selection import train_test_split

    numbers = np.arange(rows, dtype=np.int64)
    try:
        remaining, held_out = train_test_split(numbers, test_size=fraction, random_state=SPLIT_SEED, stratify=stratify)
    except ValueError:
        raise _empty_part(field, fraction, rows) from None
    if not len(remaining) or not len(held_out):
        raise _empty_part(field, fraction, rows)
    return remaining, held_out


def _empty_part(field: str, fraction: float, rows: int) -> Invalid:
    return Invalid(field, f"{fraction:g} of {rows} rows leaves one part empty; try a value near 0.2")


def _why_not_stratified(labels: npt.NDArray[Any], classes: tuple[str, ...], fraction: float) -> str:
    """Reason why a stratified split is impossible; empty if it is possible."""
    present, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        return f"{classes[int(present[counts.argmin()])]!r} has only one row"
    held_out = ceil(fraction * len(labels))
    smaller = min(held_out, len(labels) - held_out)
    if smaller < len(present):
        return f"{smaller} rows are fewer than the {len(present)} classes"
    return ""
