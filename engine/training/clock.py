"""Training time: seconds that the loop trains, without pauses."""

from __future__ import annotations

from time import perf_counter


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
