"""Trains one job in several precisions in turn, all for the same number of steps, as far as time allows."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

import torch

from epochtop.engine.device.tf32 import tf32
from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.clocks import wait_for

SLICE_S = 0.1
"""Length of a turn of one training."""


class Training:
    """A job that is trained in slices. It has its own random numbers, so dropout draws the same in all precisions."""

    def __init__(self, job: Job) -> None:
        """To be called directly after `job` was built, which seeds the generators."""
        self.job = job
        self.seconds = 0.0
        """Seconds of all steps so far."""
        self._state = self._generators()

    def run(self, steps: int) -> float:
        """Train for `steps` more steps; returns their seconds, device included."""
        start = perf_counter()
        self._restore_generators()
        with tf32(self.job.spec.precision == "tf32"):
            for _ in range(steps):
                self.job.step()
            wait_for(self.job.device)
        self._state = self._generators()
        seconds = perf_counter() - start
        self.seconds += seconds
        return seconds

    def evaluate(self) -> tuple[float | None, float | None]:
        """Loss and headline metric of the held-out rows; None for a value that is not finite."""
        evaluator = self.job.evaluator
        with tf32(self.job.spec.precision == "tf32"):
            loss, scores = evaluator.read(evaluator.evaluate(self.job.model, self.job.eval_batches).cpu())
        return loss, scores.values.get(evaluator.metrics.main)

    def _generators(self) -> list[torch.Tensor]:
        device = self.job.device
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    def _restore_generators(self) -> None:
        torch.set_rng_state(self._state[0])
        for state in self._state[1:]:
            torch.cuda.set_rng_state(state, self.job.device)


def train(context: ExperimentContext, trainings: Iterable[Training], steps: int, until_s: float) -> int:
    """Train all of them for `steps` steps in turn, or for fewer if at most `until_s` of the budget is left.

    Returns the number of steps: the same for all, and at least one. Raises Stopped.
    """
    done, slice_steps = 0, 1
    while done < steps and not (done and context.left_s() <= until_s):
        slice_steps, longest_s = min(slice_steps, steps - done), 0.0
        for training in trainings:
            context.check()
            longest_s = max(longest_s, training.run(slice_steps))
        done += slice_steps
        slice_steps = max(1, int(slice_steps * SLICE_S / max(longest_s, 1e-9)))
    return done
