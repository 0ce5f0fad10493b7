"""Repeated measurements of several cases in turn, so that a busy neighbor hits them all alike.

Torch-free: a case brings its own clock, which waits for its device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps

from epochtop.engine.lab.experiment import ExperimentContext, Row

ROUNDS = 7
"""That a median and its quartiles should come from."""
SAMPLE_S = 0.05
"""A measurement should last so long, or a clock and a scheduler tell more than the work."""


def threads_kept(measure: Callable[[ExperimentContext], Iterator[Row]]) -> Callable[[ExperimentContext], Iterator[Row]]:
    """An experiment's `measure` that leaves the process with as many intra-op threads as it found, however it ends."""

    @wraps(measure)
    def measured(bench: ExperimentContext) -> Iterator[Row]:
        import torch

        threads = torch.get_num_threads()
        try:
            yield from measure(bench)
        finally:
            torch.set_num_threads(threads)

    return measured


@dataclass(frozen=True)
class Case:
    """Something that can be done again and again."""

    labels: Row
    """The columns that tell its rows apart."""
    run: Callable[[int], float]
    """Does it so many times; returns the seconds of all of them, device included."""
    most: int = 1_000_000
    """Times in one measurement."""
    least: int = 1
    """Times in one measurement, where something happens once in so many."""


def interleave(
    bench: ExperimentContext,
    cases: Sequence[Case],
    seconds: float | None = None,
    rounds: int = ROUNDS,
    most_rounds: int = 50,
) -> Iterator[Row]:
    """Rows `{labels, round, repeats, seconds}`, with seconds of doing it once, for at most `seconds` of the budget.

    Each case is warmed up; the first round is thus no slower than others. A round takes every case once, every other
    round backwards. Measurements are as long as time allows for `rounds` rounds; at least one round is measured.
    """
    until = time.perf_counter() + (bench.left_s() if seconds is None else min(seconds, bench.left_s()))
    warmed = [_warm(bench, case) for case in cases]
    left = max(0.0, until - time.perf_counter())
    repeats = _repeats(cases, warmed, left / max(rounds, 1))
    for turn in range(most_rounds):
        numbers = range(len(cases)) if turn % 2 == 0 else reversed(range(len(cases)))
        for number in numbers:
            if turn and time.perf_counter() > until:
                return
            bench.check()
            case, times = cases[number], repeats[number]
            yield {**case.labels, "round": turn, "repeats": times, "seconds": case.run(times) / times}


def _warm(bench: ExperimentContext, case: Case) -> float:
    """Seconds of doing it once, after it has been done."""
    bench.check()
    case.run(1)
    times, took = 1, case.run(1)
    while took < SAMPLE_S / 10 and times < case.most:
        bench.check()
        times = min(times * 8, case.most)
        took = case.run(times)
    return took / times


def _repeats(cases: Sequence[Case], once: Sequence[float], round_s: float) -> list[int]:
    """How often each is done in a measurement, so that a round takes about `round_s`, if that can be."""
    fixed = sum(once)
    free = max(0.0, round_s - fixed)
    each = min(SAMPLE_S, free / len(cases)) if cases else 0.0
    return [
        max(case.least, min(case.most, round(each / max(took, 1e-9)))) for case, took in zip(cases, once, strict=True)
    ]
