"""Repeated measurements of several cases in turn, so that other load on the machine affects all of them alike.

A case brings its own clock, which waits for the case's device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Generic, TypeVar

import torch

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.measurements import Measurement

Recorded = TypeVar("Recorded")
LONG_S = 0.1
"""Time from which work is long, not interrupted."""

Run = Callable[[int], float]
"""Does some work N times and returns the seconds of all N, device included."""

ROUNDS = 7
"""Rounds for a median with quartiles."""
SAMPLE_S = 0.01
"""Length of a measurement. Many short ones resolve more than a few long ones: a neighbor changes its load in between."""


def restores_threads(
    measure: Callable[[ExperimentContext], Iterator[Measurement]],
) -> Callable[[ExperimentContext], Iterator[Measurement]]:
    """Make an experiment's `measure` restore the process's number of intra-op threads, however it ends."""

    @wraps(measure)
    def restoring(context: ExperimentContext) -> Iterator[Measurement]:
        threads = torch.get_num_threads()
        try:
            yield from measure(context)
        finally:
            torch.set_num_threads(threads)

    return restoring


def on_threads(number: int, run: Run) -> Run:
    """`run` on `number` threads. One run creates the threads before the clock starts."""

    def threaded(times: int) -> float:
        if torch.get_num_threads() != number:
            torch.set_num_threads(number)
            run(1)
        return run(times)

    return threaded


@dataclass(frozen=True)
class Case(Generic[Recorded]):
    """Work that can be repeated."""

    record: Callable[..., Recorded]
    """Makes the row of a measurement from the keywords `round`, `repeats` and `seconds` (of one repeat)."""
    run: Run
    most: int = 1_000_000
    """Most repeats in one measurement."""
    least: int = 1
    """Fewest repeats in one measurement, for work with a part that happens once in this many repeats."""


def interleave(
    context: ExperimentContext,
    cases: Sequence[Case[Recorded]],
    seconds: float | None = None,
    rounds: int = ROUNDS,
    most_rounds: int = 100,
) -> Iterator[Recorded]:
    """Measure the cases in turn, for at most `seconds` of the budget, and yield the row of each measurement.

    Each case is warmed up, so the first round is no slower than others. A round runs every case once; every other round
    runs backwards. Measurements are as long as the time allows for `rounds` rounds. At least one round is measured.
    """
    end = time.perf_counter() + (context.left_s() if seconds is None else min(seconds, context.left_s()))
    once_s = [_warm_up(context, case) for case in cases]
    left_s = max(0.0, end - time.perf_counter())
    repeats = _repeats(cases, once_s, left_s / max(rounds, 1))
    for turn in range(most_rounds):
        numbers = range(len(cases)) if turn % 2 == 0 else reversed(range(len(cases)))
        for number in numbers:
            if turn and time.perf_counter() > end:
                return
            context.check()
            case, times = cases[number], repeats[number]
            yield case.record(round=turn, repeats=times, seconds=case.run(times) / times)


def _warm_up(context: ExperimentContext, case: Case[Recorded]) -> float:
    """Seconds of one repeat, after the first one."""
    context.check()
    case.run(1)
    times, elapsed_s = 1, _elapsed_s(case, 1)
    while elapsed_s < SAMPLE_S / 10 and times < case.most:
        context.check()
        times = min(times * 8, case.most)
        elapsed_s = _elapsed_s(case, times)
    return elapsed_s / times


def _elapsed_s(case: Case[Recorded], times: int) -> float:
    """Seconds of some repeats; if they may be short and interrupted, the less of two tries.

    An interruption that counts as work would leave every measurement with a few repeats.
    """
    seconds = case.run(times)
    return min(seconds, case.run(times)) if SAMPLE_S / 10 <= seconds < LONG_S else seconds


def _repeats(cases: Sequence[Case[Recorded]], once_s: Sequence[float], round_s: float) -> list[int]:
    """Repeats of each case in a measurement, so that a round takes about `round_s` if possible."""
    free_s = max(0.0, round_s - sum(once_s))
    sample_s = min(SAMPLE_S, free_s / len(cases)) if cases else 0.0
    return [
        max(case.least, min(case.most, round(sample_s / max(seconds, 1e-9))))
        for case, seconds in zip(cases, once_s, strict=True)
    ]
