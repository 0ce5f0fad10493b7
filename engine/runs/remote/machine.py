"""What the other machine says about itself: the newest messages, which wait here until the machine panel takes them.

Knows nothing about their contents (:mod:`epochtop.engine.hardware.remote`). Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any


class MachineFeed:
    """Messages about a machine. `send` sends a request to it; it raises OSError without a connection."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._identity = self._load = b""
        self._count = 0
        """How many loads have arrived."""
        self._is_watched = self._is_closed = False
        self._engine_pid: int | None = None

    # --- the reader ------------------------------------------------------------------------------------------

    def watch(self, engine_pid: int | None) -> None:
        """Ask for messages from now on, which include the load of a process there."""
        if not self._is_watched or engine_pid != self._engine_pid:
            self._is_watched, self._engine_pid = True, engine_pid
            self.ask_again()

    def identity(self) -> bytes:
        """What the machine is. Waits for it. Raises ConnectionError if the mirror is closed meanwhile."""
        self._wait(lambda: bool(self._identity))
        return self._identity

    def load_after(self, count: int) -> tuple[int, bytes]:
        """How many messages about the load have arrived, and the newest one. Waits until there are more than `count`.

        Raises ConnectionError if the mirror is closed meanwhile.
        """
        self._wait(lambda: self._count > count)
        return self._count, self._load

    def _wait(self, happened: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: happened() or self._is_closed)
            if self._is_closed:
                raise ConnectionError("the connection was closed")

    # --- the mirror ------------------------------------------------------------------------------------------

    def ask_again(self) -> None:
        """Ask for messages, if anyone wants them; each connection needs it."""
        if self._is_watched:
            with contextlib.suppress(OSError):  # the next connection asks again
                self._send({"type": "machine", "engine_pid": self._engine_pid})

    def take(self, kind: str, body: bytes) -> None:
        """A message has arrived."""
        with self._changed:
            if kind == "machine":
                self._identity = body
            else:
                self._load, self._count = body, self._count + 1
            self._changed.notify_all()

    def close(self) -> None:
        """No more messages come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
