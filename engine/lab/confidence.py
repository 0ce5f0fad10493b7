"""Intervals of medians: between which values the median of many more measurements would lie.

Stated intervals and the decisions behind verdicts come from here. No distribution is assumed, because times on a shared
machine have long tails. Pure, and imports no torch and no numpy: the screen computes with it too.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.99
"""Probability with which an interval contains the median."""
NOTCHES = 4
"""Notches on both sides of a median of few values; 2 notches are too few for fewer than 5 values."""
NOTCH = 1.57
"""The notch of a box plot (McGill, Tukey and Larsen 1978), in distances between quartiles over the root of the count."""
RESAMPLES = 400
"""Bootstrap samples of an interval."""
STUDENT = {5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""By number of parts that a run is divided into: the 97.5 % quantile of Student's distribution for as many values."""
FEWEST_PARTS, MOST_PARTS = min(STUDENT), max(STUDENT)
LEAST = 0.1
"""Fraction of the measurements that was disturbed least."""


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Two of the values between which the median lies with CONFIDENCE, by the sign test; at least one value.

    Fewer than 8 values cannot give that confidence. Their interval is their range, or NOTCHES notches around their median
    if that is wider.
    """
    ordered = sorted(values)
    outside = _outside(len(ordered))
    if outside is not None:
        return ordered[outside], ordered[-1 - outside]
    if len(ordered) < 2:
        return ordered[0], ordered[0]
    low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
    middle, notch = statistics.median(ordered), NOTCHES * NOTCH * (high - low) / math.sqrt(len(ordered))
    return min(ordered[0], middle - notch), max(ordered[-1], middle + notch)


def _outside(count: int) -> int | None:
    """How many of `count` values lie below the interval, and as many above it; None if there are too few values."""
    chance, outside = 0.5**count, None
    for number in range(count // 2):
        if 2 * chance > 1 - CONFIDENCE:
            return outside
        outside = number
        chance += math.comb(count, number + 1) * 0.5**count
    return outside


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of the median of consecutive short measurements, by a bootstrap of blocks (Kunsch 1989).

    A neighbor on the machine affects several short measurements in a row. So runs of neighbors are drawn, not single
    values. The same values always give the same interval. Fewer than 8 values have the interval of `median_interval`.
    """
    count = len(values)
    if _outside(count) is None:
        return median_interval(values)
    length = max(1, round(count ** (1 / 3)))
    chance = random.Random(count)  # noqa: S311 - resampling, repeatable
    medians = []
    for _ in range(RESAMPLES):
        starts = (chance.randrange(count - length + 1) for _ in range(-(-count // length)))
        drawn = [value for start in starts for value in values[start : start + length]]
        medians.append(statistics.median(drawn))
    medians.sort()
    cut = int(RESAMPLES * (1 - CONFIDENCE) / 2)
    return medians[cut], medians[-1 - cut]


def repeat_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval in which the median of another run of the experiment is expected; at least one value, in order of time.

    It is the interval of the median, and reaches at least from quartile to quartile and over :func:`drift`, as far as values
    were measured. Two runs differ in more than independent measurements of one run show: other programs, other machines on
    the same host, the clock of the processor. That does not become less with more measurements.
    """
    low, high = median_interval(values)
    if len(values) < 2:
        return low, high
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    distance = drift(values)
    least, most = max(min(values), middle - distance), min(max(values), middle + distance)
    return min(low, lower, least), max(high, upper, most)


def drift(values: Sequence[float]) -> float:
    """The distance from the median within which that of another run is expected with 95 %; 0 for fewer than 10 values.

    The run is divided into parts of two values or more, in order of time. Independent measurements would have medians that
    are close together. Where the machine changes slowly, longer parts have medians as far apart as shorter ones (flicker
    noise: Allan 1966), and so have runs. The distance is that of one more part, by Student's prediction interval.
    """
    parts = min(MOST_PARTS, len(values) // 2)
    if parts < FEWEST_PARTS:
        return 0.0
    ends = [len(values) * part // parts for part in range(parts + 1)]
    medians = [statistics.median(values[begin:end]) for begin, end in itertools.pairwise(ends)]
    return STUDENT[parts] * statistics.stdev(medians) * math.sqrt(1 + 1 / parts)


def undisturbed(values: Sequence[float]) -> tuple[float, float, float]:
    """The value at LEAST of the measurements, and its interval, from half of LEAST to the median; at least one value.

    A neighbor takes CPU time and caches, which only makes a measurement longer. So the median rises with the load of the machine,
    and this value hardly does. Fewer values than 1 / LEAST have their range as the interval.
    """
    ordered = sorted(values)
    if len(ordered) * LEAST < 1:
        return ordered[0], ordered[0], ordered[-1]
    return _quantile(ordered, LEAST), _quantile(ordered, LEAST / 2), statistics.median(ordered)


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Between the two values around it, in proportion."""
    place = part * (len(ordered) - 1)
    before = int(place)
    after = min(before + 1, len(ordered) - 1)
    return ordered[before] + (place - before) * (ordered[after] - ordered[before])
