"""Times the set-up of an executor and the steps that a job runs with it.

The training loop is not used, because evaluation and checkpoints are not part of the comparison.
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
    """A ready executor, by name, and the seconds of its set-up. Raises Unsupported."""
    wait_for(job.device)
    start = perf_counter()
    executor = make(job, name)
    wait_for(job.device)
    return executor, perf_counter() - start


@contextmanager
def empty_cache(most_s: float) -> Iterator[None]:
    """Build C programs as for the first time, in an empty cache. A build of more than `most_s` raises Unsupported."""
    cache_before, limit_before_s = os.environ.get("EPOCHTOP_CACHE"), build.WAIT_S
    with TemporaryDirectory(prefix="epochtop-lab-") as folder:
        os.environ["EPOCHTOP_CACHE"], build.WAIT_S = folder, min(most_s, limit_before_s)
        try:
            yield
        finally:
            build.WAIT_S = limit_before_s
            if cache_before is None:
                del os.environ["EPOCHTOP_CACHE"]
            else:
                os.environ["EPOCHTOP_CACHE"] = cache_before


class Stepping:
    """Runs steps of `job` with `executor`. After the last step of the plan it starts again with the first."""

    def __init__(self, job: Job, executor: Executor) -> None:
        self._job, self._executor = job, executor
        self._window, self._step = LossWindow(job.device), 0

    def __call__(self, times: int) -> float:
        """Seconds of `times` steps, device included. Their losses are read after the clock has stopped."""
        wait_for(self._job.device)
        start = perf_counter()
        self._run(times)
        wait_for(self._job.device)
        seconds = perf_counter() - start
        self._window.turn(0.0)
        self._window.drain()
        return seconds

    def _run(self, times: int) -> None:
        run_steps, window, steps = self._executor.run, self._window, self._job.plan.steps
        while times > 0:
            count = run_steps(window, self._step, min(times, steps - self._step), self._rate)
            times -= count
            self._step = (self._step + count) % steps

    def _rate(self, step: int) -> float:
        return self._job.spec.learning_rate * self._job.schedule.factor(step)
