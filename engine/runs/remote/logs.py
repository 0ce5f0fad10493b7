"""The logs of other tools on another machine: files in a folder of the mirror, where readers take them for logs of this one.

Names and places come from another machine and are checked. Used by one thread at a time, but for :attr:`MirroredLogs.paths`.
Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epochtop.engine.runs.remote.databases import store_rows
from epochtop.engine.runs.remote.files import Place, append, replace
from epochtop.engine.terminal.plain import plain_line
from epochtop.remote.frames import ProtocolError, is_file_path

FOLDER = "opened"
"""Folder in a mirror with a folder per opened path, by number."""
MOST_FILES, MOST_BYTES = 5_000, 1 << 30


class MirroredLogs:
    """Fills a folder of `mirror`. `send` sends a request to the other machine; it raises OSError without a connection.
    `notify` gets what users must know, one sentence each."""

    def __init__(
        self, mirror: Path, send: Callable[[dict[str, Any]], None], notify: Callable[[str], None] = lambda _: None
    ) -> None:
        self._folder, self._send, self._notify = mirror / FOLDER, send, notify
        self._places: dict[str, Place] = {}
        self._databases: dict[str, Place] = {}
        """By name: number of the last row, and number of the original."""
        self._left_out: set[str] = set()
        self._bytes = self._parts = 0
        self._is_wanted = False

    def paths(self) -> list[Path]:
        """The opened paths, as far as files of them are here. The first call asks for them, without waiting."""
        if not self._is_wanted:
            self._is_wanted = True
            self.ask_again()
        with contextlib.suppress(OSError):
            return [path for number in sorted(self._folder.iterdir()) for path in number.iterdir()]
        return []

    def ask_again(self) -> None:
        """Ask for the logs, if anyone wants them; each connection needs it."""
        if self._is_wanted:
            known = {name: place.known(self._folder / name) for name, place in self._places.items() if place.offset}
            for name, place in self._databases.items():
                known[name] = {"offset": place.offset, "identity": place.identity}
            with contextlib.suppress(OSError):  # the next connection asks again
                self._send({"type": "logs", "known": known})

    def take(self, header: dict[str, Any], body: bytes) -> None:
        """What a file has gained, or a new file, or why one is left out. Raises ProtocolError, OSError."""
        name, offset = header.get("name"), header.get("offset", 0)
        if not isinstance(name, str) or not is_file_path(name) or "/" not in name or not isinstance(offset, int):
            raise ProtocolError("it sent an invalid name of a log")
        if header["type"] == "left_out":
            self._report(name, str(header.get("reason")))
            return
        places = self._databases if header["type"] == "rows" else self._places
        place = places.setdefault(name, Place())
        self._bytes += len(body)
        if len(self._places) + len(self._databases) > MOST_FILES or self._bytes > MOST_BYTES:
            raise ProtocolError("it has too many logs")
        path = self._folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if header["type"] == "rows":
            store_rows(path, header, body)
            place.offset = offset
        else:
            self._take_bytes(path, place, header, body)
        place.identity = int(header["identity"])
        self._date(path, header)

    def _take_bytes(self, path: Path, place: Place, header: dict[str, Any], body: bytes) -> None:
        offset = header["offset"]
        if header["fresh"] or place.offset == 0:
            if not path.exists() or path.read_bytes() != body:
                replace(path, body)
        elif offset == place.offset:
            append(path, body)
        else:
            raise ProtocolError("it sent a part of a log that does not fit")
        place.offset = offset + len(body)

    def _date(self, path: Path, header: dict[str, Any]) -> None:
        """Give a file the time of its original, which tells whether a log still grows.

        Microseconds count parts, because readers of a database know by its time that it has changed.
        """
        self._parts += 1
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            os.utime(path, ns=(int(float(header["modified"]) * 1000) * 1_000_000 + self._parts % 1000 * 1000,) * 2)

    def _report(self, name: str, reason: str) -> None:
        if name not in self._left_out:
            self._left_out.add(name)
            self._notify(plain_line(f"{name.partition('/')[2]} is not shown: {reason}"))
