"""The files of a run for `epochtop pull`: which there are, and their bytes from any place, with a checksum.

Reads regular files only, and never follows a link. Imports the standard library and modules that are sent with it only.
"""

from __future__ import annotations

import hashlib
import os
import time

from epochtop.engine.runs.heartbeat import is_alive
from epochtop.engine.runs.regular import open_file
from epochtop.recording.directory import COMMANDS, HEARTBEAT, LOCK
from epochtop.remote.frames import DEEPEST, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from epochtop.remote.frames import Frame

PART_BYTES = 1 << 20
"""Most bytes of one frame."""
MOST_FILES = 20_000
"""Most files of a run."""
TICK_S = 1.0
"""Seconds between two signs of life while a checksum is computed."""
NOT_COPIED = frozenset((LOCK, HEARTBEAT, COMMANDS))
"""Files that belong to the process of a run."""


def list_files(run: Path, run_id: str) -> Frame:
    """All files of a run: path, size and time of the last change."""
    alive = is_alive(run)
    files = sorted(_files(run, "", 1))
    return {"type": "files", "run": run_id, "alive": alive, "files": files[:MOST_FILES]}, b""


def _files(folder: Path, prefix: str, depth: int) -> Iterator[list[Any]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if not is_name(entry.name) or (not prefix and entry.name in NOT_COPIED):
            continue
        if entry.is_dir(follow_symlinks=False) and depth < DEEPEST:
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/", depth + 1)
        elif entry.is_file(follow_symlinks=False):
            facts = entry.stat(follow_symlinks=False)
            yield [prefix + entry.name, facts.st_size, facts.st_mtime_ns]


def read_file(run: Path, path: str, offset: int, size: int) -> Iterator[Frame]:
    """The bytes of a file from `offset` to `size`, then the SHA-256 of its first `size` bytes."""
    file_path, digest = run / path, hashlib.sha256()
    try:
        if os.path.realpath(file_path) != os.path.join(os.path.realpath(run), path):
            raise OSError("is a link")
        with open_file(file_path) as file:
            place, next_tick = 0, time.monotonic() + TICK_S
            while place < size:
                body = file.read(min(PART_BYTES, (offset if place < offset else size) - place))
                if not body:
                    raise OSError("is shorter than before")
                digest.update(body)
                if place >= offset:
                    yield {"type": "chunk", "offset": place}, body
                elif time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_S
                    yield {"type": "tick"}, b""
                place += len(body)
    except OSError as error:
        yield {"type": "refused", "message": f"{path} {error.strerror or error}"}, b""
        return
    yield {"type": "end", "sha256": digest.hexdigest()}, b""
