"""Checkpoints that wait for the disk. Each holds a copy of the whole state in memory, so their number is bounded.

Must never hold tensors.
"""

from __future__ import annotations

from threading import Event

MOST = 3
"""Most checkpoints that may wait before a loop that keeps every one of them waits too."""


class PendingSaves:
    """Checkpoints that the loop has handed over and the recorder has not processed."""

    def __init__(self) -> None:
        self.newest: tuple[int, Event] | None = None
        """Step of the newest state to resume from, and when it is processed."""
        self.requested = False
        """Whether a request waits until that state is processed."""
        self._waiting: list[Event] = []

    def add(self, processed: Event) -> None:
        """Count a checkpoint until it is `processed`."""
        self._waiting = [event for event in self._waiting if not event.is_set()] + [processed]

    @property
    def full(self) -> bool:
        """Whether as many checkpoints wait as memory may hold."""
        return sum(not event.is_set() for event in self._waiting) >= MOST

    def defers(self, step: int) -> bool:
        """Whether a request to save the state of `step` must wait. A state that waits already needs no other request."""
        waiting = self.newest is not None and not self.newest[1].is_set()
        self.requested = waiting and self.newest is not None and self.newest[0] != step
        return waiting
