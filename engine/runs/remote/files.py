"""The files of a mirror: a home folder that is filled from frames, so that every reader of runs can read it.

A mirrored run is locked while the process of the original lives, as a process of this machine would do. File names and places
come from another machine and are checked. Used by one thread at a time. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from epochtop.engine.runs.ownership import write_origin
from epochtop.engine.runs.paths import COMMANDS, EVENTS, LOCK, OUTPUT, RECORD
from epochtop.remote.frames import ProtocolError, is_run_id

MOST_RUNS = 50_000
"""Most runs of one home folder."""
DIGEST_BYTES = 4096
"""Bytes before its end by which the other side sees that a file is still the same."""


@dataclass
class Place:
    """How much of a file is here."""

    offset: int = 0
    """Place in the original that follows the last byte."""
    identity: int = 0
    """Number of the original, which differs if it was replaced."""
    skipped: int = 0
    """Bytes of the original that were left out."""

    def known(self, path: Path) -> dict[str, Any]:
        """What the other side needs to continue."""
        with open(path, "rb") as file:
            tail = min(DIGEST_BYTES, file.seek(0, os.SEEK_END), self.offset)
            file.seek(-tail, os.SEEK_END)
            digest = hashlib.sha256(file.read(tail)).hexdigest()
        return {"offset": self.offset, "identity": self.identity, "tail": tail, "digest": digest}


@dataclass
class Followed:
    """A run whose log is complete, or becomes so."""

    whole: bool
    """Whether the middle of a long log is wanted too."""
    places: dict[str, Place] = field(default_factory=lambda: {EVENTS: Place(), OUTPUT: Place()})
    complete: bool = False
    """Whether everything that was recorded has arrived at least once."""


class MirroredFiles:
    """Fills `folder`, which exists and is empty. `origin` is the home folder there, as people write it."""

    def __init__(self, folder: Path, origin: str) -> None:
        self._folder, self.origin = folder, origin
        self._runs: set[str] = set()
        self._unseen: set[str] = set()
        """Runs that the other side has not listed since the last connection."""
        self._locks: dict[str, IO[bytes]] = {}
        self.followed: dict[str, Followed] = {}
        self.sizes: dict[str, int] = {}
        """Size of every run's log on the other machine, when it was last listed."""

    def path(self, run_id: object) -> Path:
        """The folder of a run. Raises ProtocolError for anything but an id."""
        if not is_run_id(run_id):
            raise ProtocolError("it sent an invalid name of a run")
        return self._folder / str(run_id)

    def follow(self, run_id: str, whole: bool) -> None:
        """Start a run's log again. It counts as alive until everything has arrived."""
        run = self.path(run_id)
        self.followed[run_id] = Followed(whole)
        self._create(run_id)
        self._set_alive(run_id, True)
        replace(run / EVENTS, b"")

    def known(self, run_id: str) -> dict[str, Any]:
        """By file of a followed run: what is here of it."""
        run, places = self.path(run_id), self.followed[run_id].places
        with contextlib.suppress(OSError):
            return {name: place.known(run / name) for name, place in places.items() if place.offset}
        return {}

    # --- frames --------------------------------------------------------------------------------------------

    def take_run(self, header: dict[str, Any], body: bytes) -> None:
        """A run of the list: its record, both ends of its log, whether it is alive. Raises ProtocolError, OSError."""
        run_id = header["run"]
        run = self._create(run_id)
        self._unseen.discard(run_id)
        self.sizes[run_id] = int(header.get("size", 0))
        record, log = header.get("record"), header.get("log")
        if record is not None:
            replace(run / RECORD, body[:record])
        if run_id in self.followed:
            return
        if log is not None:
            replace(run / EVENTS, body[record or 0 :])
        self._set_alive(run_id, bool(header.get("alive")))
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            os.utime(run / LOCK, (float(header["started"]),) * 2)

    def take_part(self, header: dict[str, Any], body: bytes) -> bool:
        """Bytes that a file of a followed run has gained. True if the file starts again. Raises ProtocolError, OSError."""
        run, followed = self.path(header["run"]), self.followed.get(header["run"])
        place = followed.places.get(header.get("file", "")) if followed is not None else None
        if place is None:
            raise ProtocolError("it sent a part of a file without a request")
        file, offset, skipped = header["file"], header["offset"], header["skipped"]
        if not isinstance(offset, int) or not isinstance(skipped, int) or offset < 0 or skipped < 0:
            raise ProtocolError("it sent a part without a place")
        restarted = bool(header["fresh"]) and place.offset > 0
        if place.offset == 0 and file == EVENTS:
            append(run / file, body)  # a reader has this empty file open already
        elif place.offset == 0 or restarted:
            replace(run / file, body)
            place.skipped = 0
        elif offset == place.offset + skipped:
            append(run / file, body)
        else:
            raise ProtocolError("it sent a part that does not fit")
        place.skipped += skipped
        place.offset, place.identity = offset + len(body), header["identity"]
        return restarted and file == EVENTS

    def take_state(self, header: dict[str, Any]) -> None:
        """Everything of a followed run has arrived; whether it is alive. Raises ProtocolError, OSError."""
        run_id = header["run"]
        self.path(run_id)
        if run_id in self.followed:
            self.followed[run_id].complete = True
            self._set_alive(run_id, bool(header.get("alive")))

    def remove(self, run_id: object) -> None:
        """A run is gone. Raises ProtocolError."""
        run = self.path(run_id)
        self._set_alive(str(run_id), False)
        self._runs.discard(str(run_id))
        self.followed.pop(str(run_id), None)
        self.sizes.pop(str(run_id), None)
        shutil.rmtree(run, ignore_errors=True)

    def expect_list(self) -> None:
        """The list of all runs starts again."""
        self._unseen = set(self._runs)

    def take_list_end(self) -> None:
        """All runs have been listed: those that were not are gone."""
        for run_id in self._unseen:
            self.remove(run_id)
        self._unseen = set()

    def close(self) -> None:
        """Release all locks."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()

    # --- inside ----------------------------------------------------------------------------------------------

    def _create(self, run_id: object) -> Path:
        """The folder of a run, with the files that every run has."""
        run = self.path(run_id)
        if run_id not in self._runs:
            if len(self._runs) >= MOST_RUNS:
                raise ProtocolError(f"it has more than {MOST_RUNS:,} runs")
            run.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (LOCK, EVENTS, OUTPUT, COMMANDS):
                (run / name).touch()
            write_origin(run, self.origin)
            self._runs.add(str(run_id))
        return run

    def _set_alive(self, run_id: str, alive: bool) -> None:
        if not alive:
            lock = self._locks.pop(run_id, None)
            if lock is not None:
                lock.close()
        elif run_id not in self._locks:
            lock = open(self.path(run_id) / LOCK, "rb")
            fcntl.flock(lock, fcntl.LOCK_EX)  # a reader that asks at this moment holds it for an instant
            self._locks[run_id] = lock


def replace(path: Path, content: bytes) -> None:
    """A file with this content in place of the old one, which readers may still have open. Raises OSError."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    aside.replace(path)


def append(path: Path, content: bytes) -> None:
    """Add to a file. Raises OSError."""
    with open(path, "ab") as file:
        file.write(content)
