"""Opening a file that may be anything: another user or a damaged disk may have put a pipe or a folder in its place.

Opening a pipe without a writer waits forever. Imports built-in modules only, because a script waits for them.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Union

    AnyPath = Union[str, "os.PathLike[str]"]

LARGEST = 1 << 28
"""Most bytes of a file that is read as a whole."""
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def open_regular(path: AnyPath, flags: int = os.O_RDONLY) -> int:
    """Open a regular file without ever waiting for another process. Returns its descriptor. Raises OSError.

    A new file, with O_CREAT among the flags, belongs to this user alone.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    try:
        check_kind(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_file(path: AnyPath) -> IO[bytes]:
    """A regular file to read, unbuffered, opened without ever waiting for another process. Raises OSError."""
    return os.fdopen(open_regular(path), "rb", buffering=0)


def read_regular(path: AnyPath, largest: int = LARGEST) -> bytes:
    """The contents of a regular file of at most `largest` bytes. Raises OSError."""
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if size > largest:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, more than {largest:,}", str(path))
        content = b""
        while part := os.read(descriptor, largest + 1 - len(content)):  # it may return less than it was asked for
            content += part
        return content
    finally:
        os.close(descriptor)


def check_kind(path: AnyPath, mode: int) -> None:
    """Raises OSError unless `mode` is that of a regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {_KINDS.get(stat.S_IFMT(mode), 'no file')}", str(path))
