"""A thread that follows a run directory, so that a hanging file system cannot freeze the screen.

It reads a bounded number of batches ahead, then waits until the app has taken some. It is a daemon thread: the app can
exit while it hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Full, Queue
from time import monotonic, perf_counter

from epochtop.engine.protocol.events import (
    AnyEvent,
    Concluded,
    Continued,
    Failed,
    Finished,
    ScriptEnded,
    ScriptStarted,
)
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.opened.sources import follower_of, is_live
from epochtop.engine.runs.reader import BadLine, output_tail
from epochtop.tui.client import silence
from epochtop.tui.client.printed import PrintedLines, PrintedReader

POLL_S = 0.05
CAUSE_POLL_S = 0.2
"""Additional wait while the cause of a silence is looked for."""
OVER_POLL_S = 0.5
"""Interval at which the log of a run that is over is read, because another process may resume the run."""
ENDS = (Finished, Failed, Concluded, ScriptEnded)
"""Last events of a run, unless it is continued."""
AHEAD = 8
"""Batches, of about 1 MiB, in the queue."""


class Death:
    """The process of the run is gone without a final event.

    `tail` is the end of its output, `returncode` its exit status, None if unknown.
    """

    def __init__(self, tail: str, returncode: int | None = None) -> None:
        self.tail, self.returncode = tail, returncode


News = AnyEvent | BadLine | Death | PrintedLines


class Following:
    """Follows `run` until `close` is called; `next_batch` returns what was read. A run that is over may be resumed.

    With `reads_output`, the lines that a script prints are among it. `exit_code` returns the exit status of a dead engine,
    None if unknown. It may wait, and is called in the thread.
    """

    def __init__(
        self, run: Path, *, reads_output: bool = False, exit_code: Callable[[Path], int | None] = lambda _: None
    ) -> None:
        self.run, self._reads_output, self._exit_code = run, reads_output, exit_code
        self._queue: Queue[tuple[list[News], bool]] = Queue(AHEAD)
        """Batches, each with whether it was already written when the previous one had been read."""
        self._stop = threading.Event()
        self._over = self._up_to_date = False
        self.recorded_steps = 0
        """Steps that were recorded before the first batch; 0 if unknown."""
        self._news_at = self._look_at = monotonic()
        """When the last progress was read, and when the file system answered last."""
        self._cause = ""
        self._script = 0
        """Process of the script that records the run; 0 if it is not a script."""
        threading.Thread(target=self._work, name=f"follow {run.name}", daemon=True).start()

    def next_batch(self) -> list[News]:
        """The next batch; empty if the queue is."""
        try:
            return self._queue.get_nowait()[0]
        except Empty:
            return []

    @property
    def waiting(self) -> int:
        """Batches in the queue."""
        return self._queue.qsize()

    @property
    def behind(self) -> bool:
        """Whether the queue holds history. A live run's events arrive with pauses."""
        with self._queue.mutex:
            return any(at_once for _, at_once in self._queue.queue)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was recorded before now has been taken from the queue."""
        return self._up_to_date and self._queue.empty()

    @property
    def done(self) -> bool:
        """Whether the run is over, as far as is known, and the queue is empty."""
        return self._over and self._queue.empty()

    @property
    def silent_s(self) -> float:
        """Seconds since the last events were read that show progress."""
        return monotonic() - self._news_at

    @property
    def cause(self) -> str:
        """Why a run that is silent may record nothing, for people; empty if unknown."""
        if monotonic() - self._look_at > silence.HANGING_S:
            return "the file system of the run does not answer"
        return self._cause

    def close(self) -> None:
        """Stop following."""
        self._stop.set()

    def _work(self) -> None:
        try:
            follower = follower_of(self.run)
        except Invalid as error:  # the log of another tool is gone
            self._hand_over([Death(error.message)], False)
            self._over = True
            return
        ended, at_once = False, False
        printed: PrintedReader | None = None
        self.recorded_steps = summarize(self.run).steps or 0
        while not self._stop.is_set():
            # Checked before reading, so that an end that is written in between is read below.
            alive = not self._over and is_live(self.run)
            events = follower.read()
            self._look_at = monotonic()
            if events:
                self._over, self._script = False, silence.script_process(events) or self._script
            if silence.is_progress(events):
                self._news_at, self._cause = self._look_at, ""
            for event in events:
                if isinstance(event, ENDS):
                    ended = True
                elif isinstance(event, Continued | ScriptStarted):
                    ended = False
                if isinstance(event, ScriptStarted) and self._reads_output:
                    printed = printed or PrintedReader(self.run)
            lines = None if printed is None else printed.read() if alive or events else printed.last()
            news: list[News] = [*events, *([lines] if lines is not None else [])]
            if news:
                self._hand_over(news, at_once)
                at_once = True
            elif self._over:
                self._stop.wait(OVER_POLL_S)
            elif alive:
                self._up_to_date = True
                if self.silent_s > silence.ALLOWED_S:
                    self._cause = silence.likely_cause(self.run, self._script)
                    self._stop.wait(CAUSE_POLL_S)
                self._stop.wait(POLL_S)
                at_once = False
            else:
                if not ended:
                    tail = output_tail(self.run) if printed is None else ""
                    self._hand_over([Death(tail, self._exit_code(self.run))], at_once)
                    ended = True
                self._over = self._up_to_date = True
        if printed is not None:
            printed.close()
        follower.close()

    def _hand_over(self, batch: list[News], at_once: bool) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put((batch, at_once), timeout=0.2)
            except Full:
                continue
            return


BUDGET_S = 0.1
"""Seconds of the event loop that one refresh of the screen may spend on events."""


def drain(following: Following, apply: Callable[[News], None]) -> bool:
    """Apply what was read, for at most BUDGET_S. True if there was anything."""
    until = perf_counter() + BUDGET_S
    any_news = False
    while perf_counter() < until and (batch := following.next_batch()):
        any_news = True
        for event in batch:
            apply(event)
    return any_news
