"""Copying a run from another machine: resumable, verified by checksums, and complete or absent.

The copy grows in a folder with a temporary name, which stays if the copy is interrupted and is continued the next time. Nothing
in it is executed. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.ownership import origin_of, write_origin
from epochtop.engine.runs.paths import COMMANDS, EVENTS, LOCK, OUTPUT, RECORD
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.remote.frames import is_file_path

GROWING = (EVENTS, OUTPUT)
"""Files that may grow meanwhile; the log comes last, so that no checkpoint is ahead of it."""
ROUNDS = 5
"""Most attempts to find the other files of a live run unchanged."""
RECONNECT_S = 120.0
"""Longest wait for a new connection."""
POLL_S = 0.05


@dataclass(frozen=True)
class RemoteFile:
    """A file of the run on the other machine."""

    path: str
    size: int
    changed_ns: int
    """Time of its last change."""


@dataclass(frozen=True)
class Copy:
    """A copied run."""

    path: Path
    bytes: int
    """Size of all files."""
    received: int
    """Bytes that came over the connection."""
    alive: bool
    """Whether the run was still running, so that the copy ends before it."""


def pull(mirror: Mirror, run_id: str, home: Path, on_progress: Callable[[int, int], object] = lambda *_: None) -> Copy:
    """Copy a run into `home`, which exists. An older copy of the same run is replaced. `on_progress`: bytes here, of how many.

    Raises Invalid if it cannot be copied.
    """
    origin, target = f"{mirror.place}/{run_id}", home / run_id
    if target.exists() and origin_of(target) != origin:
        raise Invalid("", f"{target} exists and is not a copy of {origin}; move it away or set EPOCHTOP_HOME")
    aside = target.with_name(f".pull-{target.name}")
    try:
        if target.exists() and not aside.exists():  # what is here already need not come again
            shutil.copytree(target, aside, symlinks=True)
        aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(aside):
            copy = _Copying(mirror, run_id, aside, on_progress)
            files = copy.copy_all()
            write_origin(aside, origin)
            for name in (LOCK, COMMANDS):
                (aside / name).touch()
            _take_place(aside, target)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise Invalid(
            "", f"cannot copy {origin} to {home}{where}: {error.strerror or error}; pull again to continue"
        ) from None
    return Copy(target, sum(file.size for file in files), copy.received, copy.alive)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises Invalid if another process copies into it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Invalid("", f"another process is copying into {folder}") from None
    finally:
        os.close(descriptor)


def _take_place(aside: Path, target: Path) -> None:
    """Rename a complete copy. Raises OSError."""
    old = target.with_name(f".old-{target.name}-{os.getpid()}")
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)


class _Copying:
    """The copy of one run into the folder `aside`."""

    def __init__(self, mirror: Mirror, run_id: str, aside: Path, on_progress: Callable[[int, int], object]) -> None:
        self._mirror, self._run_id, self._aside, self._on_progress = mirror, run_id, aside, on_progress
        self._copied: dict[str, RemoteFile] = {}
        """Files that are here and verified, by path."""
        self.received = 0
        self._total = 0
        self.alive = False

    def copy_all(self) -> list[RemoteFile]:
        """Copy every file, again if it changes meanwhile. Raises Invalid, OSError."""
        for _ in range(ROUNDS):
            files = self._list()
            self._total = sum(file.size for file in files)
            if not any(file.path == RECORD for file in files):
                raise Invalid("", f"{self._mirror.place} has no run {self._run_id} any more")
            if all(self._copy(file) for file in sorted(files, key=_order)) and self._unchanged(files):
                self._remove_others({file.path for file in files})
                return files
        raise Invalid("", f"{self._run_id} changes faster than it is copied; pull again, or when it has ended")

    def _unchanged(self, files: list[RemoteFile]) -> bool:
        """Whether no file but those that grow has changed since it was listed. Asks only for a live run."""
        if not self.alive:
            return True
        return {file for file in self._list() if file.path not in GROWING} == {
            file for file in files if file.path not in GROWING
        }

    def _remove_others(self, paths: set[str]) -> None:
        """Remove what an earlier attempt has left."""
        for path in list(self._aside.rglob("*")):
            if not path.is_dir() and path.relative_to(self._aside).as_posix() not in paths:
                path.unlink()

    # --- requests --------------------------------------------------------------------------------------------

    def _list(self) -> list[RemoteFile]:
        while True:
            self._ask({"type": "files", "run": self._run_id})
            frame = self._mirror.reply()
            if frame is not None and frame[0]["type"] == "files":
                self.alive = bool(frame[0].get("alive"))
                return [_checked(entry) for entry in frame[0]["files"]]

    def _ask(self, header: dict[str, object]) -> None:
        """Send a request, over a new connection if necessary. Raises Invalid."""
        deadline = time.monotonic() + RECONNECT_S
        while True:
            try:
                return self._mirror.ask(header)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Invalid("", f"{error.strerror}; pull again to continue") from None
                time.sleep(POLL_S)

    def _copy(self, file: RemoteFile) -> bool:
        """Copy a file, from where an earlier attempt stopped. False if it is another one now. Raises OSError."""
        if self._copied.get(file.path) == file:
            return True
        path = self._aside / file.path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for _ in range(2):
            digest, here = _digest(path, file.size)
            outcome = self._receive(file, path, digest, here)
            if outcome == "verified":
                self._copied[file.path] = file
                return True
            if outcome == "gone":
                return False
            path.unlink(missing_ok=True)  # what was here is not the beginning of this file
        return False

    def _receive(self, file: RemoteFile, path: Path, digest: hashlib._Hash, here: int) -> str:
        """Append what is missing: `verified`, `differs`, or `gone` if it can no longer be read."""
        self._ask({"type": "read", "run": self._run_id, "path": file.path, "offset": here, "size": file.size})
        with open(path, "ab") as output:
            while True:
                frame = self._mirror.reply()
                if frame is None:  # another connection continues here
                    self._ask(
                        {"type": "read", "run": self._run_id, "path": file.path, "offset": here, "size": file.size}
                    )
                    continue
                header, body = frame
                if header["type"] == "end":
                    output.flush()
                    os.fsync(output.fileno())
                    return "verified" if here == file.size and header["sha256"] == digest.hexdigest() else "differs"
                if header["type"] != "chunk" or header["offset"] != here or here + len(body) > file.size:
                    return "gone"
                output.write(body)
                digest.update(body)
                here += len(body)
                self.received += len(body)
                self._on_progress(sum(done.size for done in self._copied.values()) + here, self._total)


def _order(file: RemoteFile) -> tuple[int, str]:
    """Files that others refer to come first, the log last."""
    last = {OUTPUT: 1, EVENTS: 2}
    return last.get(file.path, 0), file.path


def _checked(entry: object) -> RemoteFile:
    """An entry of a list that came from another machine. Raises Invalid."""
    if isinstance(entry, list) and len(entry) == 3 and is_file_path(entry[0]):
        path, size, changed = entry
        if isinstance(size, int) and isinstance(changed, int) and size >= 0:
            return RemoteFile(path, size, changed)
    raise Invalid("", "the other machine sent an invalid file name; nothing was copied")


def _digest(path: Path, most: int) -> tuple[hashlib._Hash, int]:
    """The hash of what is here of a file, and its size. A file that is too long, or no file, is removed."""
    digest = hashlib.sha256()
    if path.is_symlink() or (path.exists() and (not path.is_file() or path.stat().st_size > most)):
        path.unlink()
    here = 0
    if path.exists():
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
                here += len(part)
    return digest, here
