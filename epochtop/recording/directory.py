"""A run directory: where it is, how it is created, locked and kept alive.

The engine creates its runs with the same functions. Imports built-in modules only, because a script waits for them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time

from epochtop.configuration import configured_home
from epochtop.configuration.regular import open_regular
from epochtop.recording.forks import close_in_children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

RECORD, EVENTS, COMMANDS, LOCK, OUTPUT = "run.json", "events.jsonl", "commands.jsonl", "lock", "output.log"
"""Files of a run: its record, its events, commands to it, the lock of its process, and what the process printed."""
RESERVE = ".reserve"
"""File that holds space for the last event while the process is alive."""
CLAIM = "recorder.lock"
"""File of a command's run that the process which records it, and obeys its commands, holds locked."""
HEARTBEAT = "heartbeat"
"""File whose modification time is refreshed while the process is alive."""
DIFF = "git.diff"
"""File with the uncommitted changes of a script's git repository."""
HEARTBEAT_S = 5.0
"""Seconds between two refreshes of the heartbeat."""
OPENED = "opened.json"
"""File of the home folder with the paths of logs that `epochtop open` shows."""
RUN_TO_JOIN = "EPOCHTOP_RUN"
"""Variable with the path of the run that the processes of a command add to."""
ASIDE = ".epochtop"
"""Ending of the temporary name of a file that is being written: `.NAME.PID.epochtop`."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Errors of `flock` on a file system that has none."""


def home() -> str:
    """The home folder of runs: $EPOCHTOP_HOME, else that of config.toml, else `runs` in the user's data folder."""
    custom = os.environ.get("EPOCHTOP_HOME") or configured_home()
    if custom:
        return os.path.expanduser(custom)
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/epochtop/runs")
    data = os.environ.get("XDG_DATA_HOME", "").strip() or os.path.expanduser("~/.local/share")
    return os.path.join(data, "epochtop", "runs")


def user_name() -> str:
    """Login name of the user, or the user id if it has no name."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if name := os.environ.get(variable):
            return name
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # no such user id in this container
        return str(os.getuid())


def host_name() -> str:
    """Name of the machine."""
    return os.uname().nodename


# --- creating and locking ------------------------------------------------------------------------------------


def make_folder(folder: str) -> None:
    """Create a folder and the folders above it, private to the user. Raises OSError."""
    if not os.path.isdir(folder):
        parent = os.path.dirname(os.path.abspath(folder))
        make_folder(parent)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None


def slug(text: str) -> str:
    """The first part of a run's id: letters and digits of a name, at most 24, joined with `-`."""
    words = "".join(letter if letter.isalnum() else "-" for letter in text)[:24].strip("-").lower()
    return words or "run"


def create(folder: str, stem: str, record: bytes, subfolders: Iterable[str] = ()) -> tuple[str, IO[bytes]]:
    """Create a run directory in a home folder that exists, and lock it. Its id is `stem` and four hexadecimal digits.

    Returns its path and the open lock file, which the process keeps open as long as it is alive. The directory is filled
    under a temporary name and then renamed, so that no viewer sees it incomplete. Raises OSError and leaves nothing.
    """
    aside = os.path.join(folder, f".new-{os.urandom(8).hex()}")
    lock: IO[bytes] | None = None
    try:
        os.mkdir(aside, 0o700)
        for name in subfolders:
            os.mkdir(os.path.join(aside, name))
        lock = open(os.path.join(aside, LOCK), "wb")
        acquire(lock)
        for name, content in ((EVENTS, b""), (COMMANDS, b""), (OUTPUT, b""), (HEARTBEAT, identity()), (RECORD, record)):
            with open(os.path.join(aside, name), "wb", buffering=0) as file:
                while content:
                    content = content[file.write(content) :]
        while True:
            path = os.path.join(folder, f"{stem}-{os.urandom(2).hex()}")
            if not os.path.lexists(path):
                try:
                    os.rename(aside, path)
                except FileExistsError:
                    continue
                return path, lock
    except BaseException:
        if lock is not None:
            lock.close()
        _remove(aside)
        raise


def lock_again(run: str) -> IO[bytes]:
    """Lock a run whose process has ended, and end an incomplete line of its log.

    Returns the open lock file. Raises BlockingIOError if another process records the run, and OSError if it cannot be written.
    """
    lock = os.fdopen(open_regular(os.path.join(run, LOCK), os.O_RDWR), "r+b")
    try:
        acquire(lock)
        end_line(os.path.join(run, EVENTS))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(open_regular(os.path.join(run, HEARTBEAT), flags), "wb") as file:
            file.write(identity())
    except BaseException:
        lock.close()
        raise
    return lock


def restore(run: str, record: bytes) -> IO[bytes]:
    """Make a folder that was deleted and is there again a run directory. Returns the open lock file. Raises OSError."""
    lock = os.fdopen(open_regular(os.path.join(run, LOCK), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")
    acquire(lock)
    path = os.path.join(run, RECORD)
    if not os.path.exists(path):
        write_atomically(path, record)
    return lock


def acquire(lock: IO[bytes]) -> None:
    """Lock an open file for this process; forked children close it. Raises BlockingIOError if it is held.

    Does nothing on a file system without locks.
    """
    close_in_children(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def end_line(path: str) -> None:
    """Append a newline to a log whose last line is incomplete. Raises OSError."""
    with os.fdopen(open_regular(path, os.O_RDWR), "r+b") as log:
        size = log.seek(0, os.SEEK_END)
        if size:
            log.seek(-1, os.SEEK_END)
            if log.read(1) != b"\n":
                log.write(b"\n")


def _remove(folder: str) -> None:
    """Remove a folder that was not completed, as far as possible."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


# --- files that are complete or absent -----------------------------------------------------------------------


def write_atomically(path: str, content: bytes) -> None:
    """Write a file completely or not at all: to a temporary name, which is locked meanwhile, fsync, rename. Raises OSError."""
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".{name}.{os.getpid()}{ASIDE}")
    with open_aside(aside) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            _unlink(aside)
            raise
    sync_folder(folder or ".")


def open_aside(aside: str | os.PathLike[str]) -> IO[bytes]:
    """A new file, locked before another process can take it for left over. Waits for a thread that writes the same one."""
    while True:
        file = os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666), "wb")
        close_in_children(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(aside)):
                file.truncate(0)
                return file
        except FileNotFoundError:
            pass
        file.close()  # removed between opening and locking


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Sync the names in a folder to the disk; otherwise a power cut may restore a file that was replaced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


# --- heartbeat -------------------------------------------------------------------------------------------------


def identity() -> bytes:
    """The contents of the heartbeat file: host, process id, and Unix time at which the process began to record."""
    return f"{host_name()} {os.getpid()} {time.time():.3f}\n".encode()


class Heartbeat:
    """Tells readers for which locks mean nothing that the process is alive: the time of a file, refreshed every 5 s."""

    def __init__(self, run: str | os.PathLike[str]) -> None:
        self._path = os.path.join(run, HEARTBEAT)
        self._next = 0.0

    def beat(self) -> None:
        """Refresh the file if it is time. Never raises."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + HEARTBEAT_S
        try:
            os.utime(self._path)  # the file system's own clock
        except OSError:
            self._write()

    def _write(self) -> None:
        try:
            with open(self._path, "wb") as file:
                file.write(identity())
        except OSError:
            pass
