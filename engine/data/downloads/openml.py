"""What openml.org sends, as rows: whole images where the dataset is known to be one, else a table of numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress, RawDataset
from epochtop.engine.data.downloads.download import download, listed, text_columns
from epochtop.engine.data.labels import Labels, labels_of, of_names
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import Invalid

IMAGES = {"mnist_784": (1, 28, 28), "Fashion-MNIST": (1, 28, 28), "CIFAR_10": (3, 32, 32)}
"""Datasets whose columns are the pixels of an image, by their names at openml.org: channels, height, width."""
MOST_DENSE_BYTES = 4 * 2**30
"""A sparse table larger than this, as numbers one beside the other, is refused."""


def from_openml(name: str, target: str, folder: Path, say: OnProgress, version: int | None = None) -> RawDataset:
    """Fetch a dataset by its name or number; `target` empty takes its default target. Raises Invalid."""
    bunch = download(name, version, target, folder, say)
    names = tuple(bunch.target_names)
    if len(names) != 1 or bunch.target is None:
        what = f"has several targets ({', '.join(names)})" if names else "has no default target"
        shown = listed(list(bunch.feature_names))
        raise Invalid("target", f"openml:{name} {what}; name the label column with target: {shown}")
    found, version_found = bunch.details["name"], bunch.details.get("version", "?")
    say(f"{found}: {bunch.data.shape[0]:,} rows of {bunch.data.shape[1]:,} columns")
    x = _numbers(name, bunch)
    labels = _labels(bunch.target, names[0])
    image = IMAGES.get(found)
    pixels = _pixels(x, image) if image is not None and labels.classes else None
    return RawDataset(
        kind="table" if pixels is None else "image",
        x=x if pixels is None else pixels,
        y=labels.y,
        loss=labels.loss,
        classes=labels.classes,
        columns=tuple(bunch.feature_names) if pixels is None else (),
        target=names[0],
        image=None if pixels is None else image,
        notes=(f"{found}, version {version_found}, from {bunch.url}", *bunch.heard),
    )


def _numbers(name: str, bunch: Any) -> npt.NDArray[np.float64]:
    """The features, all of them finite numbers; float64 (rows, features)."""
    categories = bunch.categories or {}
    if any(column in categories for column in bunch.feature_names):
        raise text_columns(name, [column for column in bunch.feature_names if column in categories])
    if 0 in bunch.data.shape:
        raise Invalid("dataset", f"openml:{name} has no {'feature columns' if bunch.data.shape[0] else 'rows'}")
    x = bunch.data if isinstance(bunch.data, np.ndarray) else _dense(name, bunch.data)
    sound = np.asarray(np.isfinite(x).all(axis=0))
    missing = [column for column, fine in zip(bunch.feature_names, sound.tolist(), strict=True) if not fine]
    if missing:
        raise Invalid(
            "dataset",
            f"openml:{name}: values are missing in {listed([repr(column) for column in missing])}; save the table as a "
            "CSV file with them filled in",
        )
    return x


def _dense(name: str, sparse: Any) -> npt.NDArray[np.float64]:
    size = math.prod(sparse.shape) * 8
    if size > MOST_DENSE_BYTES:
        raise Invalid("dataset", f"openml:{name} is sparse and would need {format_bytes(size)}; choose another")
    dense: npt.NDArray[np.float64] = sparse.toarray()
    return dense


def _labels(target: npt.NDArray[Any], column: str) -> Labels:
    """Numbers as everywhere; names are classes however many they are."""
    labels = labels_of(target, column)
    if labels.classes or target.dtype.kind == "f":
        return labels
    names, codes = np.unique(target.astype(str), return_inverse=True)
    return of_names(names.tolist(), codes, column)


def _pixels(x: npt.NDArray[np.float64], image: tuple[int, int, int]) -> npt.NDArray[np.uint8] | None:
    """The rows as images, uint8 (rows, channels, height, width); None where they are not whole numbers of 0 … 255."""
    if x.shape[1] != math.prod(image):
        return None
    pixels = np.empty(x.shape, dtype=np.uint8)
    for start in range(0, len(x), 1000):
        block = x[start : start + 1000]
        if block.min() < 0 or block.max() > 255:
            return None
        pixels[start : start + 1000] = block
        if not np.array_equal(pixels[start : start + 1000], block):
            return None
    return pixels.reshape(-1, *image)
