"""What a run with the schedule `range_test` tells: from losses over a growing learning rate to a rate to train with.

Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3: raise the rate from step to step,
and look where the loss falls and where it explodes. Everything here is on the host, between two windows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from epochtop.engine.protocol.events import Suggestion
from epochtop.engine.protocol.schedules import range_rate

POINTS = 1000
"""Longer tests are seen as means of so many pieces: memory and smoothing do not depend on their length."""
SPREAD = 0.02
"""Standard deviation of the smoothing, as a share of the curve."""
EXPLODED = 4.0
"""A test ends when the smoothed loss is so many times its best."""
WEIGHT = 0.9
"""Of the past, in the running mean by which a test ends."""
SURE = 6.0
"""The loss must fall by so many standard errors of the smoothed curve, else nothing is suggested."""
LEAST_FALL = 0.01
"""And by this share of its size at the beginning."""

Array = npt.NDArray[np.float64]


def suggest(rates: Array, losses: Array) -> Suggestion | None:
    """The learning rate at which the smoothed loss falls fastest over the logarithm of the rate.

    `rates` and `losses` are (points,), rates rising. What comes after the first loss that is not finite is left out.
    None where the curve never falls, or not by more than its noise.
    """
    finite = np.isfinite(losses)
    count = len(losses) if finite.all() else int(np.argmin(finite))
    if count < 10:
        return None
    rates, losses = rates[:count], losses[:count]
    smooth, error = _smooth(losses)
    lowest = int(np.argmin(smooth))
    first = float(smooth[: max(1, count // 20)].mean())
    fall = first - float(smooth[lowest])
    if lowest < 2 or fall < max(SURE * error, LEAST_FALL * abs(first)):
        return None
    slope = np.gradient(smooth[: lowest + 1], np.log(rates[: lowest + 1]))
    steepest = float(rates[int(np.argmin(slope))])
    return Suggestion(
        learning_rate=_two_digits(steepest),
        steepest_rate=steepest,
        lowest_rate=float(rates[lowest]),
        tenth_of_lowest=float(rates[lowest]) / 10,
        first_loss=first,
        lowest_loss=float(smooth[lowest]),
    )


def _smooth(losses: Array) -> tuple[Array, float]:
    """A centered Gaussian mean, which does not lag behind, and the standard error that noise leaves in it."""
    width = max(1.0, SPREAD * len(losses))
    reach = min(len(losses) - 1, math.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights = np.convolve(np.ones(len(losses)), kernel, mode="full")[reach:-reach]
    smooth = np.convolve(losses, kernel, mode="full")[reach:-reach] / weights
    # neighbors' differences tell noise from course; the median is not moved by the explosion at the end
    noise = float(np.median(np.abs(np.diff(losses)))) / (math.sqrt(2) * 0.6745)
    return smooth, noise * float(np.sqrt((kernel**2).sum()) / kernel.sum())


def _two_digits(rate: float) -> float:
    return float(f"{rate:.1e}")


class RangeTest:
    """The losses of a run whose rate rises to `top` over `total` steps; says when it has seen enough."""

    def __init__(self, top: float, total: int) -> None:
        self._top, self._total = top, total
        self._stride = -(-total // POINTS)
        self._points: list[float] = []
        self._sum, self._count = 0.0, 0
        self._mean = self._weight = 0.0
        self._best = self._first = math.inf

    def add(self, losses: npt.NDArray[np.float32]) -> str:
        """Take in the next losses, (steps,); returns why the test ends, or nothing."""
        for value in losses.tolist():
            self._sum, self._count = self._sum + value, self._count + 1
            if self._count < self._stride:
                continue
            why = self._point(self._sum / self._count)
            self._sum, self._count = 0.0, 0
            if why:
                return why
        return ""

    def _point(self, loss: float) -> str:
        self._points.append(loss)
        rate = range_rate(self._top, len(self._points) * self._stride - 1, self._total)
        if not math.isfinite(loss):
            return f"the loss is no number any more at a learning rate of {rate:.2g}"
        self._mean = WEIGHT * self._mean + (1 - WEIGHT) * loss
        self._weight = WEIGHT * self._weight + (1 - WEIGHT)
        smoothed = self._mean / self._weight
        if math.isinf(self._first):
            self._first = smoothed
        if smoothed < self._best:
            self._best = smoothed
        # for a best above 0 this is: more than EXPLODED times the best
        size = self._best if self._best > 0 else max(abs(self._best), self._first - self._best)
        if smoothed - self._best > (EXPLODED - 1) * size:
            return f"the loss grew to {EXPLODED:g} times its best at a learning rate of {rate:.2g}"
        return ""

    def rates(self) -> Array:
        """The rate in the middle of each point so far."""
        middles = np.arange(len(self._points)) * self._stride + (self._stride - 1) / 2
        return np.array([range_rate(self._top, step, self._total) for step in middles])

    def suggestion(self) -> Suggestion | None:
        """What the losses so far suggest."""
        return suggest(self.rates(), np.array(self._points))


def advice(found: Suggestion | None) -> str:
    """What to do, in one line."""
    if found is None:
        return "no suggestion: the loss never fell clearly; try another model, another optimizer, or more steps"
    return f"try learning rate {found.learning_rate:g}: the loss fell fastest there"
