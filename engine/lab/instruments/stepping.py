"""An executor set up, and steps of a job taken with it, both timed: what a loop does between two looks at its clock.

The engine's own loop is not used, since evaluation and checkpoints are not what is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from time import perf_counter

from epochtop.engine.execution.c import build
from epochtop.engine.execution.choice import make
from epochtop.engine.execution.executor import Executor
from epochtop.engine.job.job import Job
from epochtop.engine.lab.instruments.clocks import wait_for
from epochtop.engine.step.window import LossWindow


def set_up(job: Job, name: str) -> tuple[Executor, float]:
    """An executor by its name, ready, and the seconds that took. Raises Unfit."""
    wait_for(job.device)
    begun = perf_counter()
    executor = make(job, name)
    wait_for(job.device)
    return executor, perf_counter() - begun


@contextmanager
def nothing_kept(most_s: float) -> Iterator[None]:
    """Programs in C are built as on the first day, in an empty cache; one that takes `most_s` raises Unfit."""
    before, most_before_s = os.environ.get("EPOCHTOP_CACHE"), build.BUILD_S
    with TemporaryDirectory(prefix="epochtop-lab-") as folder:
        os.environ["EPOCHTOP_CACHE"], build.BUILD_S = folder, min(most_s, most_before_s)
        try:
            yield
        finally:
            build.BUILD_S = most_before_s
            if before is None:
                del os.environ["EPOCHTOP_CACHE"]
            else:
                os.environ["EPOCHTOP_CACHE"] = before


class Stepping:
    """Takes steps of `job` with `executor`. After the last step of the plan comes the first one again."""

    def __init__(self, job: Job, executor: Executor) -> None:
        self._job, self._executor = job, executor
        self._window, self._step = LossWindow(job.device), 0

    def __call__(self, times: int) -> float:
        """Seconds of so many steps, device included; their losses are read after the clock has been stopped."""
        wait_for(self._job.device)
        begun = perf_counter()
        self._take(times)
        wait_for(self._job.device)
        seconds = perf_counter() - begun
        self._window.turn(0.0)
        self._window.drain()
        return seconds

    def _take(self, times: int) -> None:
        run, window, steps = self._executor.run, self._window, self._job.plan.steps
        while times > 0:
            taken = run(window, self._step, min(times, steps - self._step), self._rate)
            times -= taken
            self._step = (self._step + taken) % steps

    def _rate(self, step: int) -> float:
        return self._job.spec.learning_rate * self._job.schedule.factor(step)
