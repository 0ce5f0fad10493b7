"""Measures a step of one large batch, and the same step in several small batches."""

from __future__ import annotations

from collections.abc import Iterator

from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.accumulation.schema import Gradients, variants_of
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.sampling import restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.models.nested import joined
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.fast_path import gradients_of
from epochtop.engine.step.gradients import AutogradAccumulator

TOLERANCE = 1e-4
"""Fraction of the largest gradient of a parameter by which gradients may differ: float32 sums in another order."""
HALF_TOLERANCE = 2e-2
"""The same for bf16 and fp16."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `gradients`, `memory`, `step` and `left_out`."""
    changes = variants_of(context.spec, context.fields)
    for device in context.devices:
        built, refusals = variants.build_variants(context, device, changes)
        yield from refusals
        if refusals:
            continue
        large, small = built.jobs.values()
        if large.plan.rows < large.spec.batch_size:
            raise Invalid("batch_size", f"{large.spec.batch_size} is more than the {large.plan.rows} training rows")
        yield _gradients(device, large, small)
        yield from variants.memory(context, built, changes)
        yield from variants.steps(context, built, changes, context.share_s(device))


def _gradients(device: str, large: Job, small: Job) -> Gradients:
    """Gradients of the same rows and the same weights, in one batch and in pieces."""
    batches = small.batches.next_batches(small.spec.accumulate)
    model, criterion = small.parts.model.eval(), small.parts.criterion  # dropout would differ from batch to batch
    accumulator = AutogradAccumulator(small.parts.parameters)
    for number, batch in enumerate(batches):
        accumulator(criterion(model(batch.x), batch.y) * batch.weight, number == 0)
    accumulated = [gradient.clone() for gradient in accumulator.gradients()]
    x, y = joined([(batch.x, batch.y) for batch in batches])
    reference = gradients_of(small.parts.parameters)(criterion(model(x), y))
    model.train()
    half = large.spec.precision in ("bf16", "fp16")
    return Gradients(
        device=device,
        rows=large.spec.batch_size,
        deviation=variants.deviation(accumulated, reference),
        tolerance=HALF_TOLERANCE if half else TOLERANCE,
    )
