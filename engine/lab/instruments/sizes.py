"""Cases of growing size, up to the one that would take too long or cannot be done.

What is expected to be too slow is not even tried: an operator cannot be stopped half way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.sampling import Case
from epochtop.engine.protocol.spec import Invalid

TRIES = 2
"""Times that each is done here: once for set-up, once for time."""


@dataclass
class Grown:
    """Cases that can be measured, and why there are no larger ones."""

    cases: list[Case] = field(default_factory=list)
    expected_s: float | None = None
    """What the first one that was left out for its time would take; None where none was."""
    error: RuntimeError | MemoryError | Invalid | None = None
    """What was said where the next one could not be made or done: torch's words, or the engine's where it refused it."""


def grow(
    bench: ExperimentContext, candidates: Iterable[tuple[float, Callable[[], Case]]], most_s: float, making: float = 0.0
) -> Grown:
    """The first of `candidates` (their work, how to make them) that are expected to take at most `most_s` seconds.

    Expected is the time of the one before, times how much more work there is; or a share `making` of the time that it
    took to make it, where that is longer and grows with the work too. The first is always tried.
    """
    grown = Grown()
    before: tuple[float, float] | None = None
    for work, make in candidates:
        bench.check()
        if before is not None and (expected := before[1] * work / before[0]) > most_s:
            grown.expected_s = expected
            break
        try:
            began = perf_counter()
            case = make()
            made_s = perf_counter() - began
            took = min(case.run(1) for _ in range(TRIES))
        except (RuntimeError, MemoryError, Invalid) as error:
            grown.error = error
            break
        before = (work, max(took, making * made_s))
        grown.cases.append(case)
    return grown


def longest_s(seconds: float, growth: float, rounds: int) -> float:
    """What the largest case may take, so that trying, warming up and `rounds` rounds of it and all smaller ones fit.

    Each case is `growth` times as long as the one before.
    """
    every = growth / (growth - 1)
    return seconds / (every * (rounds + TRIES + 2))
