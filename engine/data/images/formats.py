"""The format that all images of a dataset are converted to, decided from what their headers say. Never decodes an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

GRAY = ("1", "L", "LA", "La", "I", "F")
"""Pillow's modes for images without color; those of 16 bits begin with `I;`."""
ORIENTATION = 0x0112
"""EXIF tag that says how a photo is turned; from 5 on, width and height are exchanged."""


@dataclass(frozen=True)
class Format:
    """Size and channels of an image, or those to which all images are converted."""

    channels: int
    height: int
    width: int

    @property
    def mode(self) -> str:
        """Pillow's name of it."""
        return "L" if self.channels == 1 else "RGB"


def format_of(image: Image) -> Format:
    """The format of an image as it is shown, from its header alone."""
    late = image.format == "PNG" and "exif" not in image.info  # Pillow would decode the image to look behind it
    orientation = 1 if late else image.getexif().get(ORIENTATION, 1)
    width, height = image.size if orientation < 5 else image.size[::-1]
    return Format(1 if image.mode in GRAY or image.mode.startswith("I;") else 3, height, width)


def common_format(formats: Sequence[Format], image_size: int = 0) -> tuple[Format, list[str]]:
    """The format that all images are converted to, and notes if they differ.

    One color image makes all of them RGB. The size is `image_size` squared, unless that is 0: then it is the one that more
    than half of the images have; if there is none, the median width and the median height.
    """
    count, gray = len(formats), sum(each.channels == 1 for each in formats)
    notes = []
    if 0 < gray < count:
        notes.append(f"{gray:,} of {count:,} images {'is' if gray == 1 else 'are'} gray; all are read as RGB")
    sizes = Counter((each.width, each.height) for each in formats)
    (width, height), most = sizes.most_common(1)[0]
    others = count - most
    if image_size:
        width = height = image_size
    elif 2 * most <= count:
        width, height = (sorted(sides)[count // 2] for sides in zip(*sizes.elements(), strict=True))
        notes.append(
            f"the images have {len(sizes):,} sizes; all are resized to {width}×{height}, their median width and height"
        )
    elif others:
        verbs = "has another size and is" if others == 1 else "have other sizes and are"
        notes.append(f"{others:,} of {count:,} images {verbs} resized to {width}×{height}, the size of the others")
    return Format(1 if gray == count else 3, height, width), notes


def likely_format(formats: Sequence[Format], image_size: int = 0) -> Format | None:
    """The format that a sample of images suggests; None if its images have no common size."""
    sizes = Counter((each.width, each.height) for each in formats)
    if not sizes or (not image_size and 2 * sizes.most_common(1)[0][1] <= len(formats)):
        return None
    return common_format(formats, image_size)[0]
