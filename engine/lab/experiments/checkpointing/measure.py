"""Measures a job with its activations kept, and with its activations computed again."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import torch

from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.checkpointing.schema import AGAIN, VARIANTS, Gradients
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.sampling import restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.fast_path import gradients_of


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `gradients`, `memory`, `step` and `left_out`. Raises Invalid for a model without blocks."""
    if context.spec.task:
        raise Invalid(
            "task", "a custom task computes its model as written, so its activations cannot be computed again"
        )
    check(msgspec.structs.replace(context.spec, **VARIANTS[AGAIN]))
    for device in context.devices:
        built, refusals = variants.build_variants(context, device, VARIANTS)
        yield from refusals
        if len(built.jobs) < len(VARIANTS):
            continue
        stored, again = built.jobs.values()
        yield Gradients(device=device, deviation=_deviation(stored, again))
        yield from variants.memory(context, built, VARIANTS)
        yield from variants.steps(context, built, VARIANTS, context.share_s(device))


def _deviation(stored: Job, again: Job) -> float:
    """Between the gradients of the same rows and weights, with the same random numbers for dropout."""
    batch = stored.batches.next_batches(1)[0]
    gradients = []
    for job in (again, stored):
        torch.manual_seed(0)
        loss = job.parts.criterion(job.parts.model(batch.x), batch.y)
        gradients.append(gradients_of(job.parts.parameters)(loss))
    return variants.deviation(*gradients)
