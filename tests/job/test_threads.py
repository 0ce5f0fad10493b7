"""The number of threads of a run, from steps whose times are planted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from epochtop.engine.job import threads
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.step import Step

ALONE_S = 1e-3


INTERRUPTED = [ALONE_S, ALONE_S, ALONE_S, 20 * ALONE_S]
"""A neighbor interrupts every fourth step: the median is ALONE_S, the mean almost six times as long."""


@pytest.mark.parametrize(
    ("alone_s", "together_s", "chosen"),
    [
        ([ALONE_S], [ALONE_S / 2], 2),
        ([ALONE_S], [ALONE_S * 0.9], 1),
        ([ALONE_S], [seconds / 2 for seconds in INTERRUPTED], 1),  # threads wait for the one that is interrupted
        (INTERRUPTED, [ALONE_S], 1),  # only the measurement with one thread is interrupted
        (INTERRUPTED, [seconds / 2 for seconds in INTERRUPTED], 2),
    ],
)
def test_all_threads_are_used_if_steps_are_clearly_faster_by_median_and_mean(
    monkeypatch: pytest.MonkeyPatch, alone_s: list[float], together_s: list[float], chosen: int
) -> None:
    now, number = 0.0, 1
    alone, together = itertools.cycle(alone_s), itertools.cycle(together_s)

    def set_num_threads(count: int) -> None:
        nonlocal number
        number = count

    def step() -> torch.Tensor:
        nonlocal now
        now += next(alone if number == 1 else together)
        return torch.zeros(())

    def copied() -> Step:
        return step

    clock: Callable[[], float] = lambda: now  # noqa: E731
    monkeypatch.setattr(threads, "perf_counter", clock)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)
    (note,) = threads.choose(RunSpec(), torch.device("cpu"), copied)
    assert number == chosen
    assert note.startswith(f"threads {chosen}: a step takes ")
