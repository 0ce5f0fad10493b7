"""Decoded images of a folder in a file, so that the next run of the same folder need not decode them.

A file is used only if this user alone can have written it; a damaged one is decoded again. Never imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.data.images.folders import ImageFile
from epochtop.engine.data.images.formats import Format
from epochtop.engine.runs.files import atomic_file, remove_left_overs_of
from epochtop.engine.runs.ownership import risk_of, trusted_cache
from epochtop.engine.runs.regular import open_file

FOLDER = "images"
SHARE_OF_FREE = 0.1
"""Images are cached only if they need at most this share of the free space."""
MOST_BYTES = 20 * 2**30
"""Size of all cached images; those that were used longest ago are removed."""
_VERSION = 1
"""Changes whenever the same file would be decoded to other pixels."""

Pixels = npt.NDArray[np.uint8]


class CachedHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored next to the pixels."""

    formats: tuple[Format | str, ...]
    """The format of every image, or why it could not be read."""


def cache_file(files: Sequence[ImageFile], image_size: int) -> Path:
    """The place of these images in the cache. Another size, time or path of any image gives another place."""
    digest = hashlib.sha256(f"{_VERSION} {image_size}".encode())
    for file in files:
        digest.update(f"\0{file.path}\0{file.size} {file.changed_ns}".encode("utf-8", "surrogateescape"))
    return trusted_cache(FOLDER).path / f"{digest.hexdigest()}.npy"


def load_images(path: Path, count: int) -> tuple[Pixels, list[Format | str]] | None:
    """The pixels of `count` images and their formats; None if they are not cached, damaged, or not this user's."""
    if not path.exists() or risk_of(path) is not None:
        return None
    try:
        with open_file(path) as file:
            x = np.load(file, allow_pickle=False)
            header = msgspec.json.decode(np.load(file, allow_pickle=False).tobytes(), type=CachedHeader)
    except Exception:  # a damaged file raises whatever numpy's and msgspec's parsers raise
        return None
    if x.dtype != np.uint8 or x.ndim != 4 or len(x) != count or len(header.formats) != count:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return x, list(header.formats)


def store_images(path: Path, x: Pixels, formats: Sequence[Format | str]) -> None:
    """Write the images completely or not at all, if there is space enough; older ones make room. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if x.nbytes > SHARE_OF_FREE * shutil.disk_usage(path.parent).free or x.nbytes > MOST_BYTES:
        return
    remove_left_overs_of(path)
    _make_room(path.parent, MOST_BYTES - x.nbytes)
    header = msgspec.json.encode(CachedHeader(formats=tuple(formats)))
    with atomic_file(path) as file:
        np.save(file, x, allow_pickle=False)
        np.save(file, np.frombuffer(header, dtype=np.uint8), allow_pickle=False)


def _make_room(folder: Path, most_bytes: int) -> None:
    """Remove the files that were used longest ago until the rest needs at most `most_bytes`."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
        total = sum(file.stat().st_size for file in files)
        while files and total > most_bytes:
            oldest = files.pop(0)
            total -= oldest.stat().st_size
            oldest.unlink()
