"""MNIST's published idx files, plain or gzipped. Never imports torch, never executes anything in them."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.protocol.spec import Invalid

Bytes = npt.NDArray[np.uint8]

UNSIGNED_BYTE = 8
"""Third byte of an idx file that holds unsigned bytes, as all four do; the fourth byte is the number of dimensions."""

PARTS = (("train", "images", 3), ("train", "labels", 1), ("t10k", "images", 3), ("t10k", "labels", 1))
"""Part, content and number of dimensions of each file."""


def idx_images(folder: Path, classes: tuple[str, ...]) -> RawDataset | None:
    """The images of the four idx files in `folder`, with the published test images; None if there are none.

    Raises Invalid if only some of the four exist, or one is damaged.
    """
    paths = [_file(folder, *part) for part in PARTS]
    if not any(paths):
        return None
    for path, (part, what, size) in zip(paths, PARTS, strict=True):
        if path is None:
            raise Invalid(
                "dataset", f"{folder} lacks {_names(part, what, size)[0]} (or .gz); download all four idx files"
            )
    train, labels, test, test_labels = (
        read_idx(path, part[2]) for path, part in zip(paths, PARTS, strict=True) if path is not None
    )
    x, y = _pair(folder, "train", train, labels, classes)
    x_test, y_test = _pair(folder, "t10k", test, test_labels, classes)
    if x.shape[1:] != x_test.shape[1:]:
        raise Invalid("dataset", f"{folder}: training and test images differ in size")
    return RawDataset(
        kind="image",
        x=x,
        y=y,
        loss="cross_entropy",
        classes=classes,
        image=(1, x.shape[2], x.shape[3]),
        test=(x_test, y_test),
        notes=(f"read from {folder}",),
    )


def read_idx(path: Path, dimensions: int) -> Bytes:
    """The array in an idx file of unsigned bytes, with `dimensions` dimensions. Raises Invalid, naming the file."""
    try:
        content = bytearray(gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise Invalid("dataset", f"{path} cannot be read: {error}") from None
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
        raise Invalid("dataset", f"{path} is not an idx file of bytes with {dimensions} dimensions; download it again")
    shape = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", offset=4, count=dimensions))
    if math.prod(shape) != len(content) - start:
        raise Invalid(
            "dataset",
            f"{path} is damaged: its header announces {math.prod(shape):,} bytes but {len(content) - start:,} "
            "follow; download it again",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _names(part: str, what: str, dimensions: int) -> tuple[str, str]:
    return f"{part}-{what}-idx{dimensions}-ubyte", f"{part}-{what}.idx{dimensions}-ubyte"


def _file(folder: Path, part: str, what: str, dimensions: int) -> Path | None:
    for name in _names(part, what, dimensions):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def _pair(
    folder: Path, part: str, images: Bytes, labels: Bytes, classes: tuple[str, ...]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if len(images) != len(labels) or images.size == 0:
        raise Invalid("dataset", f"{folder}: the {part} files have {len(images)} images and {len(labels)} labels")
    if labels.max() >= len(classes):
        raise Invalid(
            "dataset",
            f"{folder}: the {part} files have label {labels.max()}, but there are only {len(classes)} classes",
        )
    return images[:, None], labels.astype(np.int64)
