"""One image file as an array. Every error of Pillow becomes one reason. Never imports torch."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.images.formats import ORIENTATION, Format, format_of

if TYPE_CHECKING:
    from PIL.Image import Image

Source = str | bytes
"""The path of an image file, or its content."""
READ_AT_ONCE = 64 * 1024
"""A smaller file is read in one piece before Pillow looks at it, which takes fewer system calls."""
DRAFT = 2
"""A JPEG file is decoded at this multiple of the wanted size, or more, which Pillow does without reading all of it."""


class BrokenImageError(Exception):
    """An image that cannot be read; its text says why."""


@contextmanager
def opened(source: Source) -> Iterator[Image]:
    """An image, not decoded yet. Raises BrokenImageError, also for errors of decoding it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source if isinstance(source, str) else io.BytesIO(source)) as image:
            if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
                raise BrokenImageError(f"has 32 bits per channel ({image.mode}), not 8 or 16")
            yield image
    except (OSError, SyntaxError, EOFError, ValueError, struct.error, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)
        raise BrokenImageError("is not an image" if unknown else " ".join(str(error).split())) from None


def header(source: Source) -> Format:
    """The format of an image, from its header alone. Raises BrokenImageError."""
    with opened(source) as image:
        return format_of(image)


def decoded(
    source: Source, target: Format, reduced: bool, out: npt.NDArray[np.uint8], converts_color: bool = False
) -> Format:
    """Decode an image into `out` (channels, height, width), turned as its EXIF data says; returns its own format.

    Leaves `out` as it is if the image has color and `target` has not, unless it `converts_color`. With `reduced`, large JPEG
    files are decoded at a smaller scale, which is quicker and rounds differently. Raises BrokenImageError.
    """
    with opened(_in_memory(source)) as image:
        own = format_of(image)
        if own.channels > target.channels and not converts_color:
            return own
        if reduced:
            image.draft(None, (DRAFT * target.width, DRAFT * target.height))
        out[...] = pixels(_turned(image), target)
        return own


def _in_memory(source: Source) -> Source:
    """The content of a small file; the source itself if it is large or cannot be read."""
    if isinstance(source, bytes):
        return source
    try:
        with open(source, "rb", buffering=0) as file:
            content = file.read(READ_AT_ONCE)
    except OSError:
        return source
    return content if len(content) < READ_AT_ONCE else source


def _turned(image: Image) -> Image:
    """The decoded image as its EXIF data says; Pillow's own function copies an image that is not turned."""
    image.load()
    if image.getexif().get(ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def pixels(image: Image, target: Format) -> npt.NDArray[Any]:
    """An image as uint8 (channels, height, width) in the wanted format; 16 bits become 8."""
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    has_alpha = "transparency" in image.info  # Pillow converts a palette with transparency by way of RGBA
    plain = image.convert("RGBA") if has_alpha else image
    if plain.mode != target.mode:
        plain = plain.convert(target.mode)
    if plain.size != (target.width, target.height):
        plain = _resized(plain, target)
    layout = "L" if target.channels == 1 else "RGB;L"  # each row of an image as all red, all green, all blue values
    rows = np.frombuffer(plain.tobytes("raw", layout), dtype=np.uint8)
    return rows.reshape(target.height, target.channels, target.width).swapaxes(0, 1)


def _resized(image: Image, target: Format) -> Image:
    from PIL import Image

    return image.resize((target.width, target.height), Image.Resampling.BILINEAR)


def _eight_bits(image: Image) -> Image:
    """A gray image of 16 bits with 8 bits: 65,535 becomes 255."""
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8))
