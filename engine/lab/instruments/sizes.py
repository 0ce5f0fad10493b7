"""Cases of growing size, up to the first one that would take too long or fails.

A case that is expected to take too long is never tried: an operator cannot be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.sampling import Case, Recorded
from epochtop.engine.protocol.spec import Invalid

TRIES = 2
"""Runs of each case here: one for set-up, one for the time."""


@dataclass
class SizeSeries(Generic[Recorded]):
    """Cases that can be measured, and the reason why there are no larger ones."""

    cases: list[Case[Recorded]] = field(default_factory=list)
    expected_s: float | None = None
    """Expected time of the first case that was left out for its time; None if none was."""
    error: RuntimeError | MemoryError | Invalid | None = None
    """The error of the first case that could not be made or run, from torch or from the engine."""


def grow(
    context: ExperimentContext,
    candidates: Iterable[tuple[float, Callable[[], Case[Recorded]]]],
    most_s: float,
    making: float = 0.0,
) -> SizeSeries[Recorded]:
    """The first of `candidates` (their work, a function that makes them) that are expected to take at most `most_s`.

    The expected time is the time of the case before times the growth of the work. A case that takes long to make counts
    with the fraction `making` of that time instead, if that is longer. The first candidate is always tried.
    """
    series: SizeSeries[Recorded] = SizeSeries()
    previous: tuple[float, float] | None = None
    for work, make in candidates:
        context.check()
        if previous is not None and (expected := previous[1] * work / previous[0]) > most_s:
            series.expected_s = expected
            break
        try:
            start = perf_counter()
            case = make()
            making_s = perf_counter() - start
            run_s = min(case.run(1) for _ in range(TRIES))
        except (RuntimeError, MemoryError, Invalid) as error:
            series.error = error
            break
        previous = (work, max(run_s, making * making_s))
        series.cases.append(case)
    return series


def longest_s(seconds: float, growth: float, rounds: int) -> float:
    """Time of the largest case so that trying, warming up and `rounds` rounds of it and all smaller cases fit.

    Each case takes `growth` times as long as the one before.
    """
    total = growth / (growth - 1)
    return seconds / (total * (rounds + TRIES + 2))
