"""Files whose being open means that this process is alive: its forked children close their copies.

A lock or a pipe is open until the last process that has it closes it. The workers of a data loader are forks that notice
the death of their engine after seconds; with a copy of the lock, a killed run would look alive until then. Imports
built-in modules only.
"""

from __future__ import annotations

import os
from _weakref import ref  # importing `weakref` takes a millisecond

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

_files: set[ref[IO[bytes]]] = set()


def close_in_children(file: IO[bytes]) -> None:
    """Have every process that this one forks from now on close its copy of `file`. A lock on it remains."""
    _files.add(ref(file, _files.discard))


def _close_copies() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for reference in list(_files):
        file = reference()
        if file is not None and not file.closed:
            os.dup2(nowhere, file.fileno(), inheritable=False)  # close() would write the buffer to the parent's file
    os.close(nowhere)
    _files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)
