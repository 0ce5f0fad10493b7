"""Opening the files of a run, which may be anything: another user or a damaged disk may have put a pipe or a folder there.

Opening a pipe without a writer waits forever. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

LARGEST = 1 << 28
"""Most bytes of a file that is read as a whole."""
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file to read it, unbuffered, without ever waiting for another process. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _check(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, largest: int = LARGEST) -> bytes:
    """The contents of a regular file of at most `largest` bytes. Raises OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, more than {largest:,}", str(path))
        content = b""
        while part := file.read(largest + 1 - len(content)):  # a read may return less than it was asked for
            content += part
        return content


def check_regular(path: Path) -> None:
    """Raises OSError for anything but a regular file."""
    _check(path, path.stat().st_mode)


def _check(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {_KINDS.get(stat.S_IFMT(mode), 'no file')}", str(path))


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, without its path."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
