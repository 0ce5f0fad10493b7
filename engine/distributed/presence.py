"""Where the main thread of each rank is, told to rank 0 once a second: it shows which rank keeps the others waiting.

A thread of its own tells it, so that it also speaks for a rank that loops or waits. Reads no device and takes no part in an
exchange. Never imports the group.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import msgspec
import torch

BEAT_S = 1.0
"""Interval between two beats of a rank."""
Wait = Literal["", "order", "others"]
"""What a rank waits for: nothing, the next order of rank 0, or an exchange with the other ranks."""

_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_EXCHANGES = tuple(f"{_TORCH}{name}{os.sep}" for name in ("distributed", "autograd", "cuda", f"nn{os.sep}parallel"))
"""Folders of torch whose functions wait for other ranks, or for a device that does."""


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """One rank at one moment."""

    beat: int
    """Grows while the rank's process runs."""
    orders: int
    """Orders that the rank has sent or received."""
    waits_for: Wait
    place: str
    """Where the main thread is, such as `own.py:8 in loss`."""
    pid: int


class Progress:
    """How far this rank is, for the thread that reports it. The main thread sets it."""

    def __init__(self) -> None:
        self.orders = 0
        """Orders sent or received."""
        self._waits_for: Wait = ""
        self._beats = count()

    @contextlib.contextmanager
    def waiting(self, subject: Wait) -> Iterator[None]:
        """Say what the main thread waits for."""
        self._waits_for = subject
        try:
            yield
        finally:
            self._waits_for = ""

    def presence(self) -> Presence:
        """This rank now. May be called from any thread."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        return Presence(
            beat=next(self._beats),
            orders=self.orders,
            waits_for=self._waits_for or ("others" if _is_in_exchange(frame) else ""),
            place=_place(frame),
            pid=os.getpid(),
        )


def _is_in_exchange(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(_EXCHANGES)


def _place(frame: FrameType | None) -> str:
    """The innermost line outside torch."""
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    if frame is None:
        return "an unknown place"
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"


# --- the store ---------------------------------------------------------------------------------------------------


def presence_of(store: Any, rank: int) -> Presence | None:
    """What a rank has told last; None if it has told nothing."""
    key = f"presence/{rank}"
    return msgspec.json.decode(store.get(key), type=Presence) if store.check([key]) else None


class PresenceTeller:
    """Tells rank 0 where this rank is, until it is closed. `connect` opens a connection of its own to the store."""

    def __init__(self, connect: Callable[[], Any], rank: int, progress: Progress, interval_s: float = BEAT_S) -> None:
        self._connect, self._key, self._progress, self._interval_s = connect, f"presence/{rank}", progress, interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="presence", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def close(self) -> None:
        """End soon."""
        self._over.set()
        self._thread.join(self._interval_s)

    def _work(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone with rank 0
            store = self._connect()
            while not self._over.is_set():
                store.set(self._key, msgspec.json.encode(self._progress.presence()))
                self._over.wait(self._interval_s)
