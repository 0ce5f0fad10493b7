"""Files that are complete or absent, and the partial files that a killed process leaves behind.

A file is written under a temporary name next to its place and then renamed. The temporary file is locked while it is
written, so a partial file without a lock is left over, whichever machine its process ran on. Removes files with names of
epochtop only. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

from epochtop.engine.runs.paths import CHECKPOINTS, COMMANDS, EVENTS, HEARTBEAT, LOCK, OUTPUT, PREPARATION, RECORD
from epochtop.recording import directory
from epochtop.recording.directory import ASIDE, open_aside, sync_folder

OLD_S = 3600.0
"""Age from which on a partial file in a shared folder is left over, if it has no lock that would tell."""

_ASIDE = re.compile(r"\..+\.\d+\.epochtop")
_ASIDE_OF_0_1_0 = re.compile(
    r"\.(run\.json|preparation\.json|launch|(last|best|epoch-\d+)(\.json|-\d+\.safetensors))\.\d+"
)
_NEW_RUN = re.compile(r"\.new-[0-9a-f]{16}")
_PROBE = re.compile(r"\.probe-\d+-[0-9a-f]{8}")
_RUN_FILES = frozenset((RECORD, EVENTS, COMMANDS, HEARTBEAT, LOCK, OUTPUT, PREPARATION, CHECKPOINTS))


# --- writing ---------------------------------------------------------------------------------------------------


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all: to a temporary name, fsync, rename. Raises OSError."""
    directory.write_atomically(str(path), content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends, and leaves nothing if it raises. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}{ASIDE}")
    with open_aside(aside) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8 that a user asked for: complete or absent, or as it was. Raises OSError.

    Removes partial files of earlier attempts. Writes directly into what cannot be replaced, such as a pipe or /dev/null.
    """
    if path.exists() and not path.is_file():
        with open(path, "w", encoding="utf-8", newline="") as special:
            yield special
        return
    path = path.resolve()  # replaces the target of a link, not the link
    remove_left_overs_of(path)
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        try:
            yield text
            text.flush()
        finally:
            text.detach()


# --- what is left over -------------------------------------------------------------------------------------


def remove_left_overs_of(path: Path) -> None:
    """Remove partial files of earlier attempts to write `path`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+\.epochtop")
    _remove_files(path.parent, pattern)


def clean_run(run: Path) -> None:
    """Remove partial files from a run directory, whose lock this process must hold."""
    for folder in (run, run / CHECKPOINTS):
        _remove_files(folder, _ASIDE)
        _remove_files(folder, _ASIDE_OF_0_1_0)


def clean_home(home: Path) -> None:
    """Remove run directories that were never completed from a home folder."""
    remove_old(home, _PROBE)
    for folder in _matches(home, _NEW_RUN):
        with contextlib.suppress(OSError):
            if _is_abandoned_run(folder):
                shutil.rmtree(folder)


def remove_old(folder: Path, pattern: re.Pattern[str]) -> None:
    """Remove files and folders whose whole name matches `pattern` and that nothing has changed for an hour."""
    for path in _matches(folder, pattern):
        with contextlib.suppress(OSError):
            if time.time() - _last_change(path) < OLD_S:
                continue
            if stat.S_ISDIR(path.lstat().st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()


def _matches(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if pattern.fullmatch(name)]  # noqa: PTH208 - quicker
    except OSError:
        return []


def _remove_files(folder: Path, pattern: re.Pattern[str]) -> None:
    for path in _matches(folder, pattern):
        with contextlib.suppress(OSError), _unlocked(path):
            path.unlink()


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[None]:
    """Hold the lock of a regular file. Raises OSError for any other kind, and while a process writes the file."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(f"{path} is not a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned_run(folder: Path) -> bool:
    """Whether a directory that was to become a run has only files of a run, and no engine that fills it."""
    names = os.listdir(folder)  # noqa: PTH208
    if any(name not in _RUN_FILES and not _ASIDE.fullmatch(name) for name in names):
        return False
    if LOCK not in names or EVENTS not in names:  # its lock is taken before there is a log
        return time.time() - _last_change(folder) >= OLD_S
    with contextlib.suppress(OSError), _unlocked(folder / LOCK):
        return True
    return False


def _last_change(path: Path) -> float:
    """Unix time of the last change of a file, or of a folder or anything in it."""
    newest = path.lstat().st_mtime
    if stat.S_ISDIR(path.lstat().st_mode):
        newest = max([newest, *(inner.lstat().st_mtime for inner in path.rglob("*"))])
    return newest
