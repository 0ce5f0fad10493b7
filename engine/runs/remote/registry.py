"""The mirrors of this process, by folder, for code that must treat a mirrored run differently. Imports almost nothing.

Such code appends a command, waits for a log, or would change a file that belongs to the other machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from epochtop.engine.runs.paths import LAB


class RemoteHome(Protocol):
    """What readers ask a mirror."""

    @property
    def place(self) -> str:
        """The home folder on the other machine, as people write it: `user@box:/path`."""

    @property
    def machine(self) -> str:
        """Name of the other machine, by itself."""

    @property
    def problem(self) -> str:
        """Why nothing arrives now, for people; empty while the connection works."""

    def follow(self, run: Path, *, whole: bool = False) -> None:
        """Keep the log of a run complete from now on, without waiting for it. `whole` includes the middle of a long log."""

    def wait_until_complete(self, run: Path) -> None:
        """Wait until everything that a followed run has recorded is here. Raises Invalid if the connection is lost."""

    def follow_soon(self, run: Path) -> bool:
        """Follow a run of a table if its log is short and few others are on their way. False if it is to be asked later."""

    def is_abridged(self, run: Path) -> bool:
        """Whether only parts of a run's log are here."""

    def opened_paths(self) -> list[Path]:
        """Files and folders that were opened on the other machine, as far as their logs are here."""

    def send(self, run: Path, line: bytes) -> None:
        """Have a command appended to a run. Raises OSError if there is no connection."""

    def replace_record(self, run: Path, content: bytes) -> None:
        """Have the record of a run replaced, and wait for it. Raises Invalid."""

    def delete(self, run: Path) -> None:
        """Have a run deleted, and wait for it. Raises Invalid."""


_mirrors: dict[Path, RemoteHome] = {}
"""By the folder that mirrors a home folder."""


def register(folder: Path, mirror: RemoteHome) -> None:
    """Remember a mirror."""
    _mirrors[folder] = mirror


def unregister(folder: Path) -> None:
    """Forget a mirror."""
    _mirrors.pop(folder, None)


def mirror_at(folder: Path) -> RemoteHome | None:
    """The mirror whose folder, or whose folder of experiments, this is; None for any other folder."""
    return _mirrors.get(folder.parent if folder.name == LAB else folder) if _mirrors else None


def mirror_of(run: Path) -> RemoteHome | None:
    """The mirror that a run belongs to; None for a run of this machine."""
    return mirror_at(run.parent)


def place_of(path: Path) -> str:
    """A home folder or a run as people know it: its path, or the place that it mirrors."""
    for folder in (path, *path.parents) if _mirrors else ():
        if folder in _mirrors:
            inside = path.relative_to(folder).as_posix()
            return _mirrors[folder].place + (f"/{inside}" if inside != "." else "")
    return str(path)
