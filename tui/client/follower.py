"""A thread that follows a run directory, so that a hanging file system cannot freeze the screen.

It reads ahead by a bounded number of batches and waits when nobody takes them. It is a daemon: the app can
end while it hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Full, Queue
from time import perf_counter

from epochtop.engine.protocol.events import AnyEvent, Concluded, Continued, Failed, Finished
from epochtop.engine.runs.reader import BadLine, Follower, is_alive, output_tail

POLL_S = 0.05
AHEAD = 8
"""Batches of about 1 MiB that may wait to be taken."""


class Death:
    """The engine is gone and has said no last word; `tail` is the end of what it printed."""

    def __init__(self, tail: str) -> None:
        self.tail = tail


News = AnyEvent | BadLine | Death


class Following:
    """Follows `run` until it is over or `close` is called; take what came with `take`."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._queue: Queue[tuple[list[News], bool]] = Queue(AHEAD)
        """Batches, and whether each was there already when the one before it had been read."""
        self._stop = threading.Event()
        self._over = False
        threading.Thread(target=self._work, name=f"follow {run.name}", daemon=True).start()

    def take(self) -> list[News]:
        """The next batch; empty when nothing waits."""
        try:
            return self._queue.get_nowait()[0]
        except Empty:
            return []

    @property
    def waiting(self) -> int:
        """Batches that wait to be taken."""
        return self._queue.qsize()

    @property
    def behind(self) -> bool:
        """Whether what waits is history. What a live run writes comes after a pause."""
        with self._queue.mutex:
            return any(at_once for _, at_once in self._queue.queue)

    @property
    def done(self) -> bool:
        """Whether everything has been taken and nothing will come."""
        return self._over and self._queue.empty()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()

    def _work(self) -> None:
        follower = Follower(self.run)
        ended, at_once = False, False
        while not self._stop.is_set():
            alive = is_alive(self.run)  # asked before reading: an end written meanwhile is read below
            events = follower.read()
            for event in events:
                if isinstance(event, Finished | Failed | Concluded | Continued):
                    ended = not isinstance(event, Continued)
            if events:
                self._hand_over(list(events), at_once)
                at_once = True
            elif alive:
                self._stop.wait(POLL_S)
                at_once = False
            else:
                if not ended:
                    self._hand_over([Death(output_tail(self.run))], at_once)
                break
        follower.close()
        self._over = True

    def _hand_over(self, batch: list[News], at_once: bool) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put((batch, at_once), timeout=0.2)
            except Full:
                continue
            return


BUDGET_S = 0.1
"""Seconds of the event loop that one beat of the screen may spend on taking in events."""


def take_in(following: Following, apply: Callable[[News], None]) -> bool:
    """Apply what has come, for at most BUDGET_S. True if there was anything."""
    until = perf_counter() + BUDGET_S
    some = False
    while perf_counter() < until and (batch := following.take()):
        some = True
        for event in batch:
            apply(event)
    return some
