"""Rows from an array: a table, images or series, by its shape and type. Never imports torch.

Bytes stay bytes. Other images become float32, since their values may have any range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import Kind
from epochtop.engine.data.scaling import ALL_ROWS, blocks
from epochtop.engine.protocol.spec import Invalid

Array = npt.NDArray[Any]
OVER_TIME = ("lstm", "transformer")
"""Models that read series only."""
SMALLEST_IMAGE = 4
"""Least side of an image in an array that could also be series."""
MOST_CHANNELS = 64


@dataclass(frozen=True)
class Features:
    """Rows as a raw dataset has them."""

    kind: Kind
    x: Array
    notes: tuple[str, ...] = ()


def features_of(where: str, x: Array, model: str, like: Features | None = None) -> Features:
    """The rows of `x`. `where` names file and array; `model` decides about arrays that may be images or series.

    (rows,) and (rows, features) are a table; (rows, time, features) are series; four dimensions are images. `like` are the
    training rows, which decide about other rows. Raises Invalid.
    """
    if x.dtype.kind not in "biuf" or not 1 <= x.ndim <= 4 or 0 in x.shape[1:]:
        raise Invalid("dataset", f"{where} is {type_and_shape(x)}; {_EXPECTED}")
    if x.dtype.kind == "f":
        _check_finite(where, x)
    if x.ndim <= 2:
        return Features("table", _numbers(x if x.ndim == 2 else x[:, None]))
    if x.ndim == 4:
        images, notes = _channels_first(where, x)
        return Features("image", _pixels(images), notes)
    if like.kind == "image" if like is not None else model not in OVER_TIME and are_gray_images(x):
        return Features("image", _pixels(x[:, None]))
    return Features("series", _numbers(x))


_EXPECTED = (
    "it must hold numbers of the shape (rows, features), series (rows, time, features), or images (rows, channels, height, "
    "width)"
)


def are_gray_images(x: Array) -> bool:
    """Whether (rows, height, width) are gray images rather than series.

    They are if they are bytes, or squares of values from 0 to 1, or of whole numbers from 0 to 255.
    """
    if x.dtype in (np.uint8, np.bool_):
        return True
    if x.shape[1] != x.shape[2] or x.shape[1] < SMALLEST_IMAGE or not len(x):
        return False
    low, high = float(x.min()), float(x.max())
    return low >= 0 and (high <= 1 or (high <= 255 and _is_whole(x)))


def _is_whole(x: Array) -> bool:
    return x.dtype.kind in "iu" or all(bool((block == np.floor(block)).all()) for block in blocks(x, ALL_ROWS))


def _numbers(x: Array) -> Array:
    small = x.dtype.kind in "iu" and x.dtype.itemsize <= 2  # float32 holds every such number
    return x if small or x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def _pixels(x: Array) -> Array:
    """Images as bytes if that loses nothing, else as float32."""
    if x.dtype == np.uint8:
        return x
    whole = x.dtype.kind in "bui" and (not x.size or (int(x.min()) >= 0 and int(x.max()) <= 255))
    return x.astype(np.uint8 if whole else np.float32)


def _channels_first(where: str, x: Array) -> tuple[Array, tuple[str, ...]]:
    """The images as (rows, channels, height, width), and a note if the array could be read in two ways."""
    first, last = x, x.transpose(0, 3, 1, 2)
    for fits in (_usual_channels, _few_channels):
        usable = [images for images in (first, last) if fits(images.shape)]
        if usable:
            note = f"{where} {x.shape[1:]} is read as (channels, height, width)"
            return usable[0], (note,) if len(usable) > 1 and x.shape[1:3] != (1, 1) else ()
    raise Invalid(
        "dataset",
        f"{where} is {type_and_shape(x)}; images need 1 or 3 channels, or fewer than the pixels of a square side, in the "
        "second or last dimension",
    )


def _usual_channels(shape: tuple[int, ...]) -> bool:
    return shape[1] in (1, 3)


def _few_channels(shape: tuple[int, ...]) -> bool:
    """Whether these are squares with fewer channels than pixels on a side, such as those of satellites."""
    _, channels, height, width = shape
    return height == width and channels < min(height, MOST_CHANNELS)


def type_and_shape(array: Array) -> str:
    """Type and shape of an array, for messages."""
    return f"{array.dtype} {array.shape}"


def _check_finite(where: str, x: Array) -> None:
    start = 0
    for block in blocks(x, ALL_ROWS):
        finite = np.isfinite(block)
        if not finite.all():
            row, *place = (int(number) for number in np.argwhere(~finite)[0])
            column = f", column {place[0]}" if len(place) == 1 else f", place {tuple(place)}" if place else ""
            value = block[(row, *place)]
            raise Invalid("dataset", f"{where}, row {start + row}{column}: {value} is not a finite number")
        start += len(block)
