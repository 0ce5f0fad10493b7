"""Training time: seconds that the loop trains, without pauses; and the share of it that evaluations may take."""

from __future__ import annotations

from time import perf_counter, process_time

EVALUATION_SHARE = 0.05
"""Share of the training time that timed evaluations take, at most."""
BEGINNING_S = 2.0
"""Evaluations in this time may take its whole share at once, so that a short run is evaluated too."""
GROWTH = 8.0
"""The next attempt may take this many times as long as an interrupted one, at most: its first batch is not typical."""


SHORTEST_S = 0.1
"""Shortest time that counts as a suspension."""
WORKING_SHARE = 0.2
"""A process that has used more CPU time than this share of a gap was not suspended in it."""


class Suspension:
    """Time for which a signal (SIGSTOP, SIGTSTP) kept the process from running.

    A thread calls `tick` every few hundredths of a second. The kernel does not tell how long a process was stopped, so the
    time between the last tick and SIGCONT is taken.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        """Total so far."""
        self._last_tick = (perf_counter(), process_time())
        self._gap = (0.0, 0.0)
        """End and length of the last gap between two ticks."""

    def tick(self) -> None:
        """The process runs."""
        now = (perf_counter(), process_time())
        gap_s = self._gap_until(now)
        if gap_s:
            self._gap = (now[0], gap_s)
        self._last_tick = now

    def end(self) -> None:
        """The process has just been continued. May be called from a signal handler."""
        now = (perf_counter(), process_time())
        gap_s = self._gap_until(now)
        ended_at, ticked_gap_s = self._gap
        if not gap_s and now[0] - ended_at < SHORTEST_S:
            gap_s = ticked_gap_s  # the other thread was quicker
        self._last_tick, self._gap = now, (0.0, 0.0)
        self.seconds += gap_s

    def _gap_until(self, now: tuple[float, float]) -> float:
        """Seconds since the last tick if the process did not run then, else 0."""
        gap_s, worked_s = now[0] - self._last_tick[0], now[1] - self._last_tick[1]
        return gap_s if gap_s >= SHORTEST_S and worked_s <= WORKING_SHARE * gap_s else 0.0


class Clock:
    """Counts seconds between `start` and `stop`, without those of suspensions."""

    def __init__(self, elapsed_s: float = 0.0, suspension: Suspension | None = None) -> None:
        """`elapsed_s` was counted before, by the process that a run continues from."""
        self._elapsed_s = elapsed_s
        self._suspension = suspension or Suspension()
        self._started_at: float | None = None

    def start(self) -> None:
        """Count."""
        self._started_at = self._now()

    def stop(self) -> None:
        """Stand still."""
        self._elapsed_s, self._started_at = self.seconds(), None

    def seconds(self) -> float:
        """Seconds so far. They never decrease."""
        if self._started_at is None:
            return self._elapsed_s
        now = self._now()
        if now > self._started_at:
            self._elapsed_s, self._started_at = self._elapsed_s + now - self._started_at, now
        return self._elapsed_s

    def _now(self) -> float:
        return perf_counter() - self._suspension.seconds


class EvaluationBudget:
    """The time that evaluations have taken, and may still take."""

    def __init__(self, start_s: float = 0.0) -> None:
        """`start_s` is the training time when this process began to train."""
        self._start_s = start_s
        self._spent_s = 0.0
        self._needed_s = 0.0
        """Expected duration of an evaluation."""

    def remaining_s(self, seconds: float) -> float:
        """What is left at training time `seconds`; negative if evaluations took too long."""
        return EVALUATION_SHARE * max(seconds - self._start_s, BEGINNING_S) - self._spent_s

    def allows(self, seconds: float) -> bool:
        """Whether an evaluation is expected to fit."""
        return self._needed_s <= max(self.remaining_s(seconds), 0.0)

    def complete(self, duration_s: float) -> None:
        """Count an evaluation."""
        self._spent_s += duration_s
        self._needed_s = duration_s

    def interrupt(self, duration_s: float, fraction: float) -> None:
        """Count an evaluation that was interrupted after this fraction of its batches."""
        self._spent_s += duration_s
        self._needed_s = min(duration_s / fraction if fraction else GROWTH * duration_s, GROWTH * duration_s)
