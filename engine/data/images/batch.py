"""All images of a dataset in one format, and those that cannot be read. Never imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress
from epochtop.engine.data.images.decoding import BrokenImageError, Source, header
from epochtop.engine.data.images.formats import Format, common_format, likely_format
from epochtop.engine.data.images.processes import Decoding, Pixels, decode_all
from epochtop.engine.hardware.limits import usable_cpus
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import Invalid, RunSpec

PROGRESS_S = 2.0
"""Seconds between two lines of progress."""
HEADER_THREADS = 8
"""Threads that read headers, which mostly wait for the disk."""
SAMPLE = 64
"""Images whose headers suggest the format of all."""
MOST_LISTED = 50


@dataclass(frozen=True)
class Images:
    """Decoded images in the order of their sources."""

    x: Pixels
    formats: list[Format | str]
    """The format of every image, or why it cannot be read."""
    notes: list[str] = field(default_factory=list)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Which images were read."""
        return np.array([isinstance(each, Format) for each in self.formats], dtype=bool)


def decode_images(spec: RunSpec, where: object, sources: Sequence[Source], report: OnProgress) -> Images:
    """All images; `where` names the dataset in messages. Raises Invalid if they do not fit into memory.

    A sample suggests the format, which saves a look at all headers if it turns out to be right.
    """
    step = -(-len(sources) // SAMPLE)
    guess = likely_format(known_formats(_headers(sources[::step], report)), spec.image_size)
    formats: list[Format | str]
    if guess is None:
        formats = _headers(sources, report)
    else:
        x, formats = in_format(spec, where, sources, guess, report)
    known = known_formats(formats)
    if not known:
        return Images(np.zeros((len(sources), 1, 1, 1), np.uint8), formats)
    target, notes = common_format(known, spec.image_size)
    if target != guess:
        x, formats = in_format(spec, where, sources, target, report)
    return Images(x, formats, notes)


def in_format(
    spec: RunSpec,
    where: object,
    sources: Sequence[Source],
    target: Format,
    report: OnProgress,
    converts_color: bool = False,
) -> tuple[Pixels, list[Format | str]]:
    """All images in one format, and the format of each or why it cannot be read. Raises Invalid if memory runs out.

    Images with color have no pixels where the format has none, unless `converts_color` makes them gray.
    """
    _need_memory(where, len(sources), target)
    work = Decoding(sources, target, spec.image_size > 0, spec.workers or usable_cpus(), converts_color)
    try:
        return decode_all(work, lambda count: report(f"read {count:,} of {len(sources):,} images"), PROGRESS_S)
    except MemoryError:
        raise Invalid(
            "dataset",
            f"{where}: a process that decodes images was killed, most likely because memory ran out; use fewer workers",
        ) from None


def _headers(sources: Sequence[Source], report: OnProgress) -> list[Format | str]:
    """The format of every image, from its header alone, or why it cannot be read."""
    headers: list[Format | str] = []
    reported_s = time.monotonic()
    with ThreadPoolExecutor(HEADER_THREADS) as threads:
        for each in threads.map(_header, sources):
            headers.append(each)
            if len(sources) > SAMPLE and time.monotonic() - reported_s >= PROGRESS_S:
                reported_s = time.monotonic()
                report(f"read the headers of {len(headers):,} of {len(sources):,} images")
    return headers


def _header(source: Source) -> Format | str:
    try:
        return header(source)
    except BrokenImageError as error:
        return str(error)


def known_formats(formats: Sequence[Format | str]) -> list[Format]:
    """The formats of the images that can be read."""
    return [each for each in formats if isinstance(each, Format)]


def _need_memory(where: object, count: int, target: Format) -> None:
    import psutil

    size, free = count * target.channels * target.height * target.width, psutil.virtual_memory().available
    if size > free:
        raise Invalid(
            "dataset",
            f"{where}: {count:,} images of {target.width}×{target.height} need {format_bytes(size)}, "
            f"{format_bytes(free)} are free; use smaller images, for example image_size 224",
        )


# --- images that cannot be read ---------------------------------------------------------------------------


def check_broken(spec: RunSpec, where: object, name_of: Callable[[int], str], images: Images) -> tuple[str, ...]:
    """A note on the images that are left out; `name_of` names an image by its place.

    Raises Invalid, naming all of them, unless `skip_broken` is set.
    """
    broken = [(place, why) for place, why in enumerate(images.formats) if isinstance(why, str)]
    count = len(images.formats)
    if not broken:
        return ()
    listed = ", ".join(f"{name_of(place)} ({why})" for place, why in broken[:MOST_LISTED])
    more = f" and {len(broken) - MOST_LISTED:,} more" if len(broken) > MOST_LISTED else ""
    if len(broken) == count:
        raise Invalid("dataset", f"{where}: no image can be read: {listed}{more}")
    if spec.skip_broken:
        verb = "image that cannot be read is" if len(broken) == 1 else "images that cannot be read are"
        return (f"{len(broken):,} {verb} left out: {listed}{more}",)
    if len(broken) == 1:
        place, why = broken[0]
        raise Invalid(
            "dataset", f"{where}/{name_of(place)} cannot be read: {why}; repair or remove it, or set skip_broken"
        )
    raise Invalid(
        "dataset",
        f"{where}: {len(broken):,} of {count:,} images cannot be read: {listed}{more}; repair or remove them, or set "
        "skip_broken",
    )
