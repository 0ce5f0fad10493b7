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


@pytest.mark.parametrize(
    ("together_s", "chosen"),
    [
        ([ALONE_S / 2], 2),
        ([ALONE_S * 0.9], 1),
        (
            [ALONE_S / 2, ALONE_S / 2, ALONE_S / 2, 20 * ALONE_S],
            1,
        ),  # a mean of 5.4 ms: a neighbor interrupts one thread
    ],
)
def test_all_threads_are_used_if_steps_are_clearly_faster_waits_included(
    monkeypatch: pytest.MonkeyPatch, together_s: list[float], chosen: int
) -> None:
    now, number = 0.0, 1
    together = itertools.cycle(together_s)

    def set_num_threads(count: int) -> None:
        nonlocal number
        number = count

    def step() -> torch.Tensor:
        nonlocal now
        now += ALONE_S if number == 1 else next(together)
        return torch.zeros(())

    def copied() -> Step:
        return step

    clock: Callable[[], float] = lambda: now  # noqa: E731
    monkeypatch.setattr(threads, "perf_counter", clock)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)
    (note,) = threads.choose(RunSpec(), torch.device("cpu"), copied)
    assert number == chosen
    assert note.startswith(f"threads {chosen}: a step takes 1 ms with 1 thread")
