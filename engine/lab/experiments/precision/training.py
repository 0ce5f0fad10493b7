"""One job trained in several arithmetics beside each other, all of them equally far, as far as time allows."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

import torch

from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.clocks import wait_for
from epochtop.engine.lab.instruments.tf32 import tf32

SLICE_S = 0.1
"""How long one is trained before it is the next one's turn."""


class Training:
    """A job that is trained bit by bit. Its random numbers are its own: what dropout draws is the same for all."""

    def __init__(self, job: Job) -> None:
        """Directly after `job` was built, which sets the generators."""
        self.job = job
        self.seconds = 0.0
        """Of all steps so far."""
        self._state = self._generators()

    def take(self, steps: int) -> float:
        """Train so many steps more; returns the seconds of these, device included."""
        begun = perf_counter()
        self._recall()
        with tf32(self.job.spec.precision == "tf32"):
            for _ in range(steps):
                self.job.step()
            wait_for(self.job.device)
        self._state = self._generators()
        took_s = perf_counter() - begun
        self.seconds += took_s
        return took_s

    def judged(self) -> tuple[float | None, float | None]:
        """Loss and headline metric of the rows that are held out; None for what is not finite."""
        judge = self.job.evaluator
        with tf32(self.job.spec.precision == "tf32"):
            loss, scores = judge.read(judge.evaluate(self.job.model, self.job.eval_batches, None).cpu())
        return loss, scores.values.get(judge.metrics.main)

    def _generators(self) -> list[torch.Tensor]:
        device = self.job.device
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    def _recall(self) -> None:
        torch.set_rng_state(self._state[0])
        for state in self._state[1:]:
            torch.cuda.set_rng_state(state, self.job.device)


def train(bench: ExperimentContext, trainings: Iterable[Training], steps: int, until_s: float) -> int:
    """Train all of them for `steps` steps, in turns, or for fewer once no more than `until_s` is left of the budget.

    Returns how many: the same for all of them, and at least one. Raises Stopped.
    """
    taken, each = 0, 1
    while taken < steps and not (taken and bench.left_s() <= until_s):
        each, longest = min(each, steps - taken), 0.0
        for training in trainings:
            bench.check()
            longest = max(longest, training.take(each))
        taken += each
        each = max(1, int(each * SLICE_S / max(longest, 1e-9)))
    return taken
