"""What the table of runs has read, stored in the home folder. It can be deleted at any time.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from epochtop.engine.protocol.events import UNREADABLE
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.regular import read_regular
from epochtop.engine.runs.table.details import RunDetails

STORE = ".table.msgpack"
"""File in the home folder."""
VERSION = 1
"""To be raised when the meaning of a field changes: older files are then not used."""

Key = tuple[int, ...]
"""Sizes and times of the last change, in nanoseconds, of the files of a run."""


class Stored(msgspec.Struct, frozen=True):
    """One run, and the state of its files when it was read."""

    key: Key
    details: RunDetails


class _Store(msgspec.Struct):
    version: int
    runs: dict[str, msgspec.Raw]


def load(home: Path) -> dict[str, Stored]:
    """What was stored, by path; nothing if the file is missing, damaged or from another version."""
    try:
        store = msgspec.msgpack.decode(read_regular(home / STORE), type=_Store)
        if store.version != VERSION:
            return {}
        decode = msgspec.msgpack.Decoder(Stored).decode
        return {path: decode(content) for path, content in store.runs.items()}
    except (OSError, *UNREADABLE):
        return {}


def save(home: Path, runs: dict[str, Stored]) -> None:
    """Store these runs. A run with a value that cannot be stored is left out; without space on the disk, nothing is stored."""
    encoder, contents = msgspec.msgpack.Encoder(), dict[str, msgspec.Raw]()
    for path, stored in runs.items():
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            contents[path] = msgspec.Raw(encoder.encode(stored))
    with contextlib.suppress(OSError):
        write_atomically(home / STORE, encoder.encode(_Store(VERSION, contents)))
