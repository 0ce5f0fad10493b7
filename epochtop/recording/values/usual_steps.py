"""Steps of the hooks' fast path in the queue of a run. Imports nothing; only hooks need it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Columns = dict[str, tuple[range, list[float]]]
    """Steps and values by series."""


class UsualSteps:
    """Steps in a row that hooks have measured, each with a loss and a duration and nothing else.

    It stands in the queue before them. Each of them is two floats: its loss, and the time at its end. That costs the
    script's loop less than a row.
    """

    __slots__ = ("_loss", "_previous", "_time", "step")

    def __init__(self, loss: str, time: str, step: int, previous: float) -> None:
        """`loss` and `time` are the names of the series of losses and of milliseconds, `step` is the first of these steps,
        and `previous` the time in seconds at the end of the step before.
        """
        self._loss, self._time, self.step, self._previous = loss, time, step, previous

    def columns(self, numbers: list[float]) -> Columns:
        """The values of the next steps. `numbers` are their losses and times in turn."""
        losses, ends = numbers[::2], numbers[1::2]
        begins = [self._previous, *ends[:-1]]
        self._previous = ends[-1]
        steps = range(self.step, self.step + len(losses))
        self.step = steps.stop
        durations = [milliseconds(end - begin) for begin, end in zip(begins, ends)]
        return {self._loss: (steps, losses), self._time: (steps, durations)}

    def next(self, loss: float, end: float) -> tuple[int, dict[str, float]]:
        """The next step and its values."""
        step, elapsed_s = self.step, end - self._previous
        self.step, self._previous = step + 1, end
        return step, {self._loss: loss, self._time: milliseconds(elapsed_s)}


def milliseconds(seconds: float) -> float:
    """A duration as a multiple of 1/1024 ms, so that four bytes hold it."""
    return int(seconds * 1024e3) / 1024
