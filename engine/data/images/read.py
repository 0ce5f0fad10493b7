"""Rows of `images:FOLDER`. Never imports torch."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from epochtop.engine.data.dataset import OnProgress, RawDataset, no_progress
from epochtop.engine.data.facts import label_fact, rows_fact
from epochtop.engine.data.images.batch import Images, check_broken, decode_images, known_formats
from epochtop.engine.data.images.cache import cache_file, load_images, store_images
from epochtop.engine.data.images.folders import ImageFile, ImageFolder, image_folder, relative
from epochtop.engine.data.images.formats import common_format
from epochtop.engine.protocol.spec import Invalid, RunSpec

WORTH_CACHING_S = 1.0
"""Images that took less time than this are not cached."""


def read_images(spec: RunSpec, report: OnProgress = no_progress) -> RawDataset:
    """Rows of a folder of images; the classes are the sorted names of the training folders. Raises Invalid.

    The headers of all images decide how they are read: see :func:`epochtop.engine.data.images.formats.common_format`.
    Decoded images are cached. An image that cannot be read is an error, which names all of them, or is left out with
    `skip_broken`.
    """
    need_pillow("images:FOLDER")
    folder = Path(spec.dataset.removeprefix("images:")).expanduser().absolute()
    contents = image_folder(folder)
    files = [file for part in contents.files.values() for file in part]
    images = _cached_or_decoded(spec, folder, files, report)
    broken = check_broken(spec, folder, lambda place: relative(folder, files[place].path), images)
    return _dataset(contents, images, (*contents.notes, *images.notes, *broken))


def need_pillow(what: str) -> None:
    """Raise Invalid with an install command if Pillow is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise Invalid("dataset", f"{what} needs Pillow; install it with: pip install 'epochtop[images]'") from None


def _dataset(contents: ImageFolder, images: Images, notes: tuple[str, ...]) -> RawDataset:
    rows, start = {}, 0
    for part, codes in contents.codes.items():
        chosen = slice(start, start + len(codes))
        readable = images.readable[chosen]
        x, y = images.x[chosen], np.array(codes, dtype=np.int64)
        rows[part] = (x, y) if readable.all() else (x[readable], y[readable])
        start += len(codes)
    x, y = rows["train"]
    return RawDataset(
        kind="image",
        x=x,
        y=y,
        loss="cross_entropy",
        classes=contents.classes,
        image=(x.shape[1], x.shape[2], x.shape[3]),
        validation=rows.get("validation"),
        test=rows.get("test"),
        notes=notes,
        column_facts=(
            rows_fact("images", "image", images.x.shape[1:], int((~images.readable).sum())),
            label_fact("folder", "cross_entropy", contents.classes, distinct=len(contents.classes)),
        ),
    )


# --- the cache ---------------------------------------------------------------------------------------------


def _cached_or_decoded(spec: RunSpec, folder: Path, files: list[ImageFile], report: OnProgress) -> Images:
    place = cache_file(files, spec.image_size)
    stored = load_images(place, len(files))
    if stored is not None:
        report(f"{len(files):,} images come from the cache")
        return Images(*stored, common_format(known_formats(stored[1]), spec.image_size)[1])
    started_s = time.monotonic()
    images = decode_images(spec, folder, [file.path for file in files], report)
    if time.monotonic() - started_s < WORTH_CACHING_S or not images.readable.any():
        return images
    try:
        store_images(place, images.x, images.formats)
    except OSError as error:
        images.notes.append(f"the decoded images could not be cached in {place.parent}: {error.strerror}")
    return images
