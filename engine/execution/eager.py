"""`eager`: one step after the other, operator by operator, executed by torch."""

from __future__ import annotations

from epochtop.engine.execution.executor import Executor, Rate
from epochtop.engine.job.job import Job
from epochtop.engine.step.window import LossWindow


class Eager(Executor):
    """Calls the step of the job; on the CPU its losses equal those of a plain loop, bit for bit."""

    name = "eager"

    def __init__(self, job: Job) -> None:
        self._job, self._constant = job, job.schedule.constant

    def run(self, window: LossWindow, step: int, max_steps: int, rate: Rate) -> int:
        if not self._constant:
            self._job.update.learning_rate = rate(step)
        window.record(self._job.step())
        return 1
