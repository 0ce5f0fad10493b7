"""The learning rate finder: from the losses of a run with the schedule `range_test` to a suggested learning rate.

Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3: raise the rate from step to step, and
see where the loss falls and where it explodes. Everything here runs on the host, between two windows, and never imports torch.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from epochtop.engine.protocol.events import Suggestion
from epochtop.engine.protocol.schedules import range_rate

POINTS = 1000
"""Longer tests are averaged to this many points, so that memory and smoothing do not depend on their length."""
SPREAD = 0.02
"""Standard deviation of the smoothing kernel, as a share of the curve."""
EXPLODED = 4.0
"""A test ends when the smoothed loss is this many times its lowest value."""
WEIGHT = 0.9
"""Weight of earlier losses in the running mean that ends a test."""
SURE = 6.0
"""A suggestion needs a fall of the loss by this many standard errors of the smoothed curve."""
LEAST_FALL = 0.01
"""A suggestion needs a fall of the loss by this share of its first value."""

Array = npt.NDArray[np.float64]


def suggest(rates: Array, losses: Array) -> Suggestion | None:
    """The learning rate at which the smoothed loss falls fastest over the logarithm of the rate.

    `rates` and `losses` are (points,), with rising rates. Points from the first loss that is not finite on are ignored.
    Returns None if the loss does not fall by more than its noise.
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
    """A centered Gaussian mean, which does not lag, and its standard error."""
    width = max(1.0, SPREAD * len(losses))
    reach = min(len(losses) - 1, math.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weights = np.convolve(np.ones(len(losses)), kernel, mode="full")[reach:-reach]
    smooth = np.convolve(losses, kernel, mode="full")[reach:-reach] / weights
    # differences of neighbors measure the noise; their median ignores the explosion at the end
    noise = float(np.median(np.abs(np.diff(losses)))) / (math.sqrt(2) * 0.6745)
    return smooth, noise * float(np.sqrt((kernel**2).sum()) / kernel.sum())


def _two_digits(rate: float) -> float:
    return float(f"{rate:.1e}")


class RangeTest:
    """The losses of a run whose rate rises to `top` over `total` steps; detects when the test can end."""

    def __init__(self, top: float, total: int) -> None:
        self._top, self._total = top, total
        self._stride = -(-total // POINTS)
        self._points: list[float] = []
        self._sum, self._count = 0.0, 0
        self._mean = self._weight = 0.0
        self._lowest = self._first = math.inf

    def add(self, losses: npt.NDArray[np.float32]) -> str:
        """Add the next losses, (steps,); returns why the test ends, empty if it continues."""
        for value in losses.tolist():
            self._sum, self._count = self._sum + value, self._count + 1
            if self._count < self._stride:
                continue
            reason = self._add_point(self._sum / self._count)
            self._sum, self._count = 0.0, 0
            if reason:
                return reason
        return ""

    def _add_point(self, loss: float) -> str:
        self._points.append(loss)
        rate = range_rate(self._top, len(self._points) * self._stride - 1, self._total)
        if not math.isfinite(loss):
            return f"the loss became NaN or infinite at a learning rate of {rate:.2g}"
        self._mean = WEIGHT * self._mean + (1 - WEIGHT) * loss
        self._weight = WEIGHT * self._weight + (1 - WEIGHT)
        smoothed = self._mean / self._weight
        if math.isinf(self._first):
            self._first = smoothed
        if smoothed < self._lowest:
            self._lowest = smoothed
        # for a lowest loss above 0 this means: more than EXPLODED times the lowest
        size = self._lowest if self._lowest > 0 else max(abs(self._lowest), self._first - self._lowest)
        if smoothed - self._lowest > (EXPLODED - 1) * size:
            return f"the loss grew to {EXPLODED:g} times its lowest value at a learning rate of {rate:.2g}"
        return ""

    def rates(self) -> Array:
        """The learning rate in the middle of every point so far."""
        middles = np.arange(len(self._points)) * self._stride + (self._stride - 1) / 2
        return np.array([range_rate(self._top, step, self._total) for step in middles])

    def suggestion(self) -> Suggestion | None:
        """The suggestion from all losses so far."""
        return suggest(self.rates(), np.array(self._points))


def advice(suggestion: Suggestion | None) -> str:
    """What to do next, in one line."""
    if suggestion is None:
        return "no suggestion: the loss did not fall clearly; try another model or optimizer, or more steps"
    return f"try learning rate {suggestion.learning_rate:g}: the loss fell fastest there"
