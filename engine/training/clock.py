"""Training time: seconds that the loop trains, without pauses; and the share of it that evaluations may take."""

from __future__ import annotations

from time import perf_counter

EVALUATION_SHARE = 0.05
"""Share of the training time that timed evaluations take, at most."""
BEGINNING_S = 2.0
"""Evaluations in this time may take its whole share at once, so that a short run is evaluated too."""
GROWTH = 8.0
"""The next attempt may take this many times as long as an interrupted one, at most: its first batch is not typical."""


class Clock:
    """Counts seconds between `start` and `stop`."""

    def __init__(self, elapsed_s: float = 0.0) -> None:
        """`elapsed_s` was counted before, by the process that a run continues from."""
        self._elapsed_s = elapsed_s
        self._started_at: float | None = None

    def start(self) -> None:
        """Count."""
        self._started_at = perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self._elapsed_s, self._started_at = self.seconds(), None

    def seconds(self) -> float:
        """Seconds so far."""
        return self._elapsed_s + (perf_counter() - self._started_at if self._started_at is not None else 0.0)


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
