"""What a forked process must not get from its parent: open files that mean that the parent is alive, and locks in use.

A file lock or a pipe is open until the last process that has it closes it. The workers of a data loader are forks that
notice the death of their engine after seconds; with a copy of the lock, a killed run would look alive until then.

A thread does not exist in a forked process, but the locks that it held do, and nobody releases them: that of a module
that it was importing, for example. Whoever imports this module there waits forever. Imports built-in modules only.
"""

from __future__ import annotations

import _thread
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


# --- locks -----------------------------------------------------------------------------------------------------


FORK_S = 1.0
"""Longest time that a fork waits for the work of another thread, which a disk may block."""

_work: set[ref[_thread.LockType]] = set()
_waiting: list[_thread.LockType] = []
"""Locks that are held until the fork is complete."""


def work_lock() -> _thread.LockType:
    """A lock for a thread to hold while it works. The process does not fork meanwhile, for up to FORK_S."""
    lock = _thread.allocate_lock()
    _work.add(ref(lock, _work.discard))
    return lock


def _await_work() -> None:
    for reference in list(_work):
        lock = reference()
        if lock is not None and lock.acquire(timeout=FORK_S):
            _waiting.append(lock)


def _allow_work() -> None:
    while _waiting:
        _waiting.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_await_work, after_in_parent=_allow_work, after_in_child=_allow_work)
    os.register_at_fork(after_in_child=_close_copies)
