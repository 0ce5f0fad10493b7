"""The rows a run trains on: loaded, split, scaled, checked; still on the host.

Scaling is fitted on the training rows only, and the split does not depend on the run's seed, so that runs
with different seeds are measured on the same test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from engine.csvfile import read_csv
from engine.spec import Invalid, RunSpec

Floats = npt.NDArray[np.float32]
LossName = Literal["cross_entropy", "binary_cross_entropy", "mean_squared_error"]

SPLIT_SEED = 42
"""`random_state` of the test split; the published Iris runs use it."""

SUMS_ROWS, SUMS_FEATURES = 10_000, 20
MOST_CLASSES = 100
"""Whole-number labels with more distinct values than this are a regression target."""


@dataclass(frozen=True)
class Split:
    """Rows ready for a device: `x` float32 (rows, features), `y` int64 (rows,) or float32 (rows,)."""

    x: Floats
    y: npt.NDArray[Any]
    x_test: Floats
    y_test: npt.NDArray[Any]
    outputs: int
    """Units of the model's last layer."""
    loss: LossName
    classes: tuple[str, ...]
    """Names of the classes; empty for a regression."""

    @property
    def metric(self) -> str:
        """`accuracy` for classes, `r2` for numbers."""
        return "r2" if self.loss == "mean_squared_error" else "accuracy"

    @property
    def bytes(self) -> int:
        """Memory of all rows."""
        return sum(array.nbytes for array in (self.x, self.y, self.x_test, self.y_test))


@dataclass(frozen=True)
class Table:
    """A dataset before it is split: `x` float64 (rows, features), `y` (rows,)."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[Any]
    loss: LossName
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()


def load(spec: RunSpec) -> Split:
    """Load, split and scale the dataset of `spec`. Raises Invalid with file, row and field."""
    table, path = _table(spec), csv_path(spec)
    try:
        return _split(table, spec)
    except Invalid as error:
        if path is None:
            raise
        raise Invalid(error.field, f"{path}: {error.message}") from None


def csv_path(spec: RunSpec) -> Path | None:
    """The file of a `csv:PATH` dataset, absolute; None for the others."""
    if not spec.dataset.startswith("csv:"):
        return None
    return Path(spec.dataset.removeprefix("csv:")).expanduser().absolute()


def _table(spec: RunSpec) -> Table:
    path = csv_path(spec)
    if path is not None:
        return _csv_table(path, spec.target)
    if spec.dataset == "sums":
        return _sums()
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{spec.dataset}")()
    names = tuple(str(name) for name in bunch.target_names)
    return Table(x=bunch.data, y=bunch.target.astype(np.int64), loss="cross_entropy", classes=names)


def _sums() -> Table:
    """10,000 rows of 20 normal features; the label says whether they add up to more than 0."""
    x = np.random.default_rng(SPLIT_SEED).standard_normal((SUMS_ROWS, SUMS_FEATURES))
    y = (x.sum(axis=1) > 0).astype(np.float32)
    return Table(x=x, y=y, loss="binary_cross_entropy", classes=("sum ≤ 0", "sum > 0"))


def _csv_table(path: Path, target: str) -> Table:
    columns, x, labels = read_csv(path, target)
    numbers = _as_numbers(labels)
    if numbers is not None and not _are_classes(numbers):
        return Table(x=x, y=numbers, loss="mean_squared_error", classes=(), columns=columns)
    names, codes = np.unique(np.array(labels) if numbers is None else numbers, return_inverse=True)
    if len(names) < 2:
        raise Invalid("target", f"{path}: column {target!r} has one class only ({labels[0]!r}); two are needed")
    shown = tuple(str(name) if numbers is None else f"{name:g}" for name in names)
    return Table(x=x, y=codes.astype(np.int64), loss="cross_entropy", classes=shown, columns=columns)


def _as_numbers(labels: list[str]) -> npt.NDArray[np.float64] | None:
    try:
        numbers = np.array(labels, dtype=np.float64)
    except ValueError:
        return None
    return numbers if bool(np.isfinite(numbers).all()) else None


def _are_classes(numbers: npt.NDArray[np.float64]) -> bool:
    return bool((numbers == np.round(numbers)).all()) and len(np.unique(numbers)) <= MOST_CLASSES


def _split(table: Table, spec: RunSpec) -> Split:
    x, x_test, y, y_test = _hold_out(table, spec.test_fraction)
    if len(table.classes) > len(y):
        raise Invalid(
            "dataset", f"{len(y)} training rows are fewer than the {len(table.classes)} classes of the label column"
        )
    x, x_test = _scale(x, x_test, spec.scaling)
    if table.loss == "mean_squared_error":
        center, spread = float(y.mean()), float(y.std())
        if spread == 0.0:
            raise Invalid("target", f"every training row has the same value ({center:g}); there is nothing to learn")
        y, y_test = (y - center) / spread, (y_test - center) / spread
    floats, floats_test = _to_float32(x, table.columns), _to_float32(x_test, table.columns)
    dtype = np.int64 if table.loss == "cross_entropy" else np.float32
    return Split(
        x=floats,
        y=np.ascontiguousarray(y, dtype=dtype),
        x_test=floats_test,
        y_test=np.ascontiguousarray(y_test, dtype=dtype),
        outputs=len(table.classes) if table.loss == "cross_entropy" else 1,
        loss=table.loss,
        classes=table.classes,
    )


def _hold_out(table: Table, fraction: float) -> tuple[Any, Any, Any, Any]:
    if fraction == 0.0:
        return table.x, table.x[:0], table.y, table.y[:0]
    from sklearn.model_selection import train_test_split

    try:
        return cast(
            tuple[Any, Any, Any, Any],
            train_test_split(table.x, table.y, test_size=fraction, random_state=SPLIT_SEED),
        )
    except ValueError:
        raise Invalid(
            "test_fraction", f"{fraction:g} of {len(table.y)} rows leaves no row on one side; use a value nearer to 0.2"
        ) from None


def _scale(x: Any, x_test: Any, scaling: str) -> tuple[Any, Any]:
    if scaling == "none":
        return x, x_test
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    scaler = (MinMaxScaler() if scaling == "minmax" else StandardScaler()).fit(x)
    return scaler.transform(x), (scaler.transform(x_test) if len(x_test) else x_test)


def _to_float32(x: Any, columns: tuple[str, ...]) -> Floats:
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(floats).all():
        column = int(np.argwhere(~np.isfinite(floats))[0][1])
        name = columns[column] if columns else str(column)
        raise Invalid("scaling", f"column {name!r} has values that float32 cannot hold; scale the features")
    return floats
