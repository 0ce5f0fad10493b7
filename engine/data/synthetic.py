"""Generated datasets: scikit-learn's generators, and two others (spirals, sums).

A fixed seed draws them, so that runs with different seeds train on the same rows. Never imports torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.protocol.spec import RunSpec

SEED = 42
SUMS_ROWS, SUMS_FEATURES = 10_000, 20
REGRESSION_FEATURES = 10
BLOB_SPREAD_PER_NOISE = 5.0
"""Factor that turns the default noise of 0.2 into scikit-learn's standard deviation of 1."""

CLASSES = {
    "moons": ("upper moon", "lower moon"),
    "circles": ("outer circle", "inner circle"),
    "blobs": ("blob 1", "blob 2", "blob 3"),
    "spirals": ("first arm", "second arm"),
}


def generate(spec: RunSpec) -> RawDataset:
    """The generated dataset named in `spec`, with its samples and noise; `sums` ignores both."""
    if spec.dataset == "sums":
        return sums()
    if spec.dataset == "regression":
        x, y = _regression(spec.samples, spec.noise)
        return RawDataset(kind="table", x=x, y=y, loss="mean_squared_error", columns=_columns(x), target="y")
    x, y = _points(spec)
    return RawDataset(
        kind="table",
        x=x,
        y=y.astype(np.int64),
        loss="cross_entropy",
        classes=CLASSES[spec.dataset],
        columns=_columns(x),
        target=spec.dataset,
    )


def sums() -> RawDataset:
    """10,000 rows of 20 normal features; the label is whether their sum is above 0."""
    x = np.random.default_rng(SEED).standard_normal((SUMS_ROWS, SUMS_FEATURES))
    y = (x.sum(axis=1) > 0).astype(np.float32)
    classes = ("sum ≤ 0", "sum > 0")
    return RawDataset(
        kind="table", x=x, y=y, loss="binary_cross_entropy", classes=classes, columns=_columns(x), target="sum"
    )


def _columns(x: npt.NDArray[Any]) -> tuple[str, ...]:
    return tuple(f"x{number}" for number in range(x.shape[1]))


def _points(spec: RunSpec) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Points in the plane, float64 (samples, 2), and the codes of their classes."""
    if spec.dataset == "spirals":
        return _spirals(spec.samples, spec.noise)
    from sklearn import datasets

    if spec.dataset == "moons":
        x, y = datasets.make_moons(spec.samples, noise=spec.noise, random_state=SEED)
    elif spec.dataset == "circles":
        x, y = datasets.make_circles(spec.samples, noise=spec.noise, factor=0.5, random_state=SEED)
    else:
        spread = BLOB_SPREAD_PER_NOISE * spec.noise
        x, y = datasets.make_blobs(spec.samples, centers=3, cluster_std=spread, random_state=SEED)
    return x, y


def _spirals(samples: int, noise: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Two arms of one and a half turns, half a turn apart; the radius grows by 1 per radian."""
    random = np.random.default_rng(SEED)
    y = np.arange(samples) % 2
    radius = 3 * np.pi * np.sqrt(random.random(samples))
    angle = radius + np.pi * y
    x = radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return x + noise * random.standard_normal((samples, 2)), y


def _regression(samples: int, noise: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A linear function of five of ten normal features, with standard deviation 1, plus normal `noise`."""
    from sklearn.datasets import make_regression

    x, y = make_regression(
        samples, n_features=REGRESSION_FEATURES, n_informative=REGRESSION_FEATURES // 2, random_state=SEED
    )
    return x, y / y.std() + noise * np.random.default_rng(SEED).standard_normal(samples)
