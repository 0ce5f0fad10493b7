"""Measures step time and memory of each precision, and trains the job in each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

import torch

from epochtop.engine.job.workload import Workload
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.precision.schema import FULL, VARIANTS, Accuracy, Fields
from epochtop.engine.lab.experiments.precision.training import Training, train
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import restores_threads
from epochtop.engine.lab.measurements import Measurement

SEEDS = 3
STEP_SHARE = 0.4
"""Fraction of the time for step times; the rest is for training."""
EVALUATION_S = 1.0
"""Time that an evaluation may take even if the budget is used up."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `memory`, `step`, `accuracy` and `left_out`."""
    for device in context.devices:
        share_s = context.share_s(device)
        end_s = max(0.0, context.left_s() - share_s)
        built, refusals = variants.build_variants(context, device, VARIANTS)
        yield from refusals
        yield from variants.memory(context, built, VARIANTS)
        yield from variants.steps(context, built, VARIANTS, share_s * STEP_SHARE)
        names, workload = tuple(built.jobs), built.workload
        del built  # frees memory for the jobs that are trained
        yield from _train(context, device, names, workload, end_s)


def _train(
    context: ExperimentContext, device: str, names: Sequence[str], workload: Workload | None, end_s: float
) -> Iterator[Accuracy]:
    """Accuracies after the same number of steps, seed by seed, until only `end_s` of the budget is left."""
    assert isinstance(context.fields, Fields)
    threads = torch.get_num_threads()
    steps, seed_s = 0, 0.0
    for seed in range(SEEDS):
        if seed and context.left_s() - end_s < seed_s:
            return
        start = perf_counter()
        context.note(f"training {', '.join(names)} on {device}, seed {seed}")
        trainings = {
            name: Training(job_of(context.spec, device, workload, seed=seed, threads=threads, precision=name))
            for name in names
        }
        per_epoch = trainings[FULL].job.plan.steps_per_epoch
        # the first seed has its share, one more share is for evaluations; later seeds are trained equally far
        until_s = end_s if seed else context.left_s() - (context.left_s() - end_s) / (SEEDS + 1)
        target = steps or context.fields.trained * per_epoch
        steps = train(context, trainings.values(), target, until_s)
        if seed and steps < target:
            return
        yield from _evaluate(context, trainings, device, seed, steps, steps / per_epoch)
        seed_s = perf_counter() - start


def _evaluate(
    context: ExperimentContext, trainings: dict[str, Training], device: str, seed: int, steps: int, epochs: float
) -> Iterator[Accuracy]:
    """Losses and headline metrics, without those that would take too long."""
    full_s = 0.0
    for name, training in trainings.items():
        context.check()
        expected_s = full_s * training.seconds / trainings[FULL].seconds
        if expected_s > max(EVALUATION_S, context.left_s()):
            _note_missing(context, name, training)
            continue
        start = perf_counter()
        loss, score = training.evaluate()
        full_s = full_s or perf_counter() - start
        yield Accuracy(
            device=device,
            round=seed,
            steps=steps,
            epochs=epochs,
            way=name,
            metric=training.job.evaluator.metrics.main,
            score=score,
            loss=loss,
        )


def _note_missing(context: ExperimentContext, name: str, training: Training) -> None:
    rows, device = len(training.job.eval_batches), training.job.device
    missing = f"the accuracy of {name} on {device}: there was no time to evaluate {rows:,} rows with it"
    if missing not in context.cannot_see:
        context.cannot_see.append(missing)
