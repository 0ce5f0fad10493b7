"""Real file systems that fill up, become read-only or are removed: small ones in memory, in a mount namespace of their own.

Only root may mount, so elsewhere these rows are left out. Nothing outside the namespace sees what is mounted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.disk.rows import after, names, spec_of_run, train

CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PART = "mounts"
"""What the table is called next to the operations of the other one."""
SIZE = "size=8m,nr_inodes=200"
FAULT_STEP = 300
"""Step at which the file system of a run fails."""
HEALS_AFTER_S = 0.3


class Mount(NamedTuple):
    """One fault of a whole file system."""

    fault: str
    moment: str


TABLE = [
    *(Mount(fault, moment) for fault in ("out of inodes", "out of space") for moment in ("start", "for a while", "to the end")),
    *(Mount("read-only", moment) for moment in ("start", "resume")),
    *(Mount("removed", moment) for moment in ("for a while", "to the end")),
    Mount("moved", "to the end"),
]  # fmt: skip
IN_CI = [Mount("out of inodes", "for a while"), Mount("read-only", "start"), Mount("removed", "to the end")]


def enter_namespace() -> bool:
    """Give this process mounts of its own. False if it may not mount. Call it before any thread starts."""
    libc = _libc()
    if os.geteuid() != 0 or libc.unshare(CLONE_NEWNS) != 0:
        return False
    return bool(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2). Raises OSError."""
    arguments = (source.encode(), os.fsencode(target), kind and kind.encode(), flags, options and options.encode())
    if _libc().mount(*arguments) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount", str(target))


def unmount(target: Path) -> None:
    """Remove a mount from its folder; files that are open stay open."""
    if _libc().umount2(os.fsencode(target), MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "cannot unmount", str(target))


class FileSystem:
    """A small file system at `home`, also mounted aside, so that it can be removed and come back."""

    def __init__(self, folder: Path) -> None:
        self.home, self._aside = folder / "runs", folder / "aside"
        for path in (self.home, self._aside):
            path.mkdir()
        mount("tmpfs", self.home, "tmpfs", 0, SIZE)
        mount(str(self.home), self._aside, None, MS_BIND)
        self._filler = self._aside / "filler"
        self._filler.mkdir()
        self._is_there = True

    def fail(self, fault: str) -> None:
        """Let it fail."""
        match fault:
            case "out of inodes":
                with contextlib.suppress(OSError):
                    for number in range(10_000):
                        (self._filler / str(number)).touch()
            case "out of space":
                with contextlib.suppress(OSError), open(self._filler / "block", "wb", 0) as block:
                    while block.write(bytes(1 << 12)):
                        pass
            case "read-only":
                mount("none", self.home, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
            case "removed" | "moved":
                unmount(self.home)
                self._is_there = False
                if fault == "moved":
                    (self.home / "other").touch()

    def heal(self) -> None:
        """Let it work again, at the same place."""
        shutil.rmtree(self._filler, ignore_errors=True)
        if self._is_there:
            mount("none", self.home, None, MS_REMOUNT | MS_BIND)
        else:
            self._is_there = True
            mount(str(self._aside), self.home, None, MS_BIND)

    def close(self) -> None:
        """Unmount it."""
        for path in (self.home, self._aside):
            with contextlib.suppress(OSError):
                unmount(path)

    @contextlib.contextmanager
    def beneath(self) -> Iterator[Path]:
        """The folder below the file system, which an engine must not write when the file system is gone."""
        unmount(self.home)
        yield self.home
        mount(str(self._aside), self.home, None, MS_BIND)


class FailsAtStep:
    """Sees the events of a run and lets its file system fail at a step, for a while or for good."""

    def __init__(self, disk: FileSystem, row: Mount) -> None:
        self._disk, self._row = disk, row
        self.healing = threading.Timer(HEALS_AFTER_S, disk.heal)
        self.has_failed = False

    def observe(self, event: Any) -> None:
        if not self.has_failed and getattr(event, "first_step", 0) >= FAULT_STEP:
            self.has_failed = True
            self._disk.fail(self._row.fault)
            if self._row.moment == "for a while":
                self.healing.start()

    def tick(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def take(row: Mount, folder: Path) -> dict[str, Any]:
    """Train while a file system fails; returns the facts."""
    disk = FileSystem(folder)
    try:
        facts = _resume(disk, row) if row.moment == "resume" else _start(disk, row)
    finally:
        disk.close()
    return {"row": list(row), **facts}


def _start(disk: FileSystem, row: Mount) -> dict[str, Any]:
    from epochtop.engine.protocol.spec import Invalid
    from epochtop.engine.runs.index import run_paths, summarize
    from epochtop.engine.runs.writer import create

    if row.moment == "start":
        disk.fail(row.fault)
    try:
        run, lock = create(disk.home, spec_of_run(), {}, 0.0)
    except Invalid as error:
        disk.heal()
        return {"refused": error.message, "left": names(disk.home), "hits": 1}
    failing = FailsAtStep(disk, row)
    facts = train(run, lock, row.moment, None if row.moment == "start" else failing)
    if row.moment == "for a while":
        failing.healing.join()
    else:
        facts |= {"listed": [path.name for path in run_paths(disk.home)], "state_without": summarize(run).state}
        disk.heal()
    with disk.beneath() as below:
        facts["beneath"] = names(below)
    return facts | {"hits": int(failing.has_failed)} | after(run)


def _resume(disk: FileSystem, row: Mount) -> dict[str, Any]:
    from epochtop.engine.protocol.spec import Invalid
    from epochtop.engine.runs.writer import create, reopen

    run, lock = create(disk.home, spec_of_run(), {}, 0.0)
    lock.close()
    before = names(disk.home)
    disk.fail(row.fault)
    try:
        reopen(run).close()
    except Invalid as error:
        disk.heal()
        left = [name for name in names(disk.home) if name not in before]
        return {"refused": error.message, "left": left, "hits": 1}
    return {"raised": "a run on a read-only file system was taken up"}
