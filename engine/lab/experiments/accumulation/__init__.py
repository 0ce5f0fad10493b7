"""Several small batches a step against one large one: the same gradients, more time, less memory.

The gradients of the small batches are added up as the engine does it, each weighed by its rows, and laid beside
those of one batch of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, refused, too_few
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.sampling import threads_kept
from epochtop.engine.lab.statistics import select, values
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import Invalid, RunSpec, declared

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job

TOLERANCE = 1e-4
"""Share of the largest gradient of a parameter by which others may differ: sums of float32 in another order."""
HALF = 2e-2
"""The same for bf16 and fp16."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Into how many batches a step is cut."""

    pieces: Annotated[
        int, declared("batches that the rows of a step are cut into", "experiment", "batches", ge=2, le=64)
    ] = 4


def _ways(found: ExperimentContext | Findings) -> dict[str, variants.Changes]:
    fields = found.fields if isinstance(found.fields, Fields) else Fields()
    rows, pieces = found.spec.batch_size or 64, fields.pieces
    small = max(1, rows // pieces)
    return {
        f"1 × {small * pieces}": {"batch_size": small * pieces, "accumulate": 1},
        f"{pieces} × {small}": {"batch_size": small, "accumulate": pieces},
    }


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` gradients, memory, step, and left_out, which has a reason."""
    for device in bench.devices:
        these, left_out = variants.built(bench, device, _ways(bench))
        yield from left_out
        if left_out:
            continue
        large, small = list(these.jobs.values())
        if large.plan.rows < large.spec.batch_size:
            raise Invalid("batch_size", f"{large.spec.batch_size} is more than the {large.plan.rows} training rows")
        yield {"kind": "gradients", "device": device, **_compared(large, small)}
        yield from variants.memory(bench, these, _ways(bench))
        yield from variants.steps(
            bench, these, _ways(bench), bench.left_s() / (len(bench.devices) - bench.devices.index(device))
        )


def _compared(large: Job, small: Job) -> Row:
    """Gradients of the same rows and the same weights, in one batch and in pieces."""
    import torch

    from epochtop.engine.step.fast_path import gradients_of
    from epochtop.engine.step.gradients import AutogradAccumulator

    batches = small.batches.next_batches(small.spec.accumulate)
    model, criterion = small.parts.model.eval(), small.parts.criterion  # dropout would differ from batch to batch
    gather = AutogradAccumulator(small.parts.parameters)
    for number, batch in enumerate(batches):
        gather(criterion(model(batch.x), batch.y) * batch.weight, number == 0)
    added = [gradient.clone() for gradient in gather.gradients()]
    x, y = torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])
    whole = gradients_of(small.parts.parameters)(criterion(model(x), y))
    model.train()
    half = large.spec.precision in ("bf16", "fp16")
    return {"rows": len(x), "deviation": variants.deviation(added, whole), "tolerance": HALF if half else TOLERANCE}


def conclude(found: Findings) -> Verdict:
    """Whether the gradients are the same, and what the memory that is saved costs in time."""
    whole, pieces = _ways(found)
    told = [device for device in found.devices if select(found.rows, kind="gradients", device=device)]
    pairs = [variants.pair(found.rows, device, pieces, whole) for device in told]
    pairs = [each for each in pairs if each.time is not None]
    if not pairs:
        why = variants.refused(found.rows, found.devices, [pieces])
        return refused(why) if why else too_few("steps of both ways")
    main = pairs[-1]
    gradients = select(found.rows, kind="gradients", device=main.device)[0]
    largest, tolerance = values([gradients], "deviation"), values([gradients], "tolerance")[0]
    same = bool(largest) and largest[0] <= tolerance
    return Verdict(
        finding=(
            f"on {main.device} {pieces} rows give {'the same' if same else 'NOT the same'} gradients as {whole}; "
            f"{main.memory_words()}; {main.time_words()}"
        ),
        evidence=(
            f"{main.device}: {variants.gradient_words(largest, tolerance)}",
            *filter(
                None, (variants.step_words(found.rows, each.device, way) for each in pairs for way in (whole, pieces))
            ),
            *(f"{each.device}: {each.memory_words()}" for each in pairs),
            *variants.left_out(found.rows),
        ),
        next_step=_next(main, same),
        uncertainty=(
            f"{variants.quartiles_apart(found.rows)}; batch norm sees the rows of one piece only, and dropout draws for each "
            "piece, so that models with them do not take the same steps"
        ),
    )


def _next(main: variants.Pair, same: bool) -> str:
    if not same:
        return "do not use accumulation for this job before it is known why: a loss that is no mean over rows does this"
    if main.memory is None:
        return "accumulate where the batch that you want does not fit: what that saves was not measured here"
    if not main.saves:
        return "there is nothing to save here: stay with the large batch"
    return "accumulate where the batch that you want does not fit; where it fits, the large batch is the same step " + (
        "and faster"
        if main.time is not None and main.time.distinct and main.time.ratio.median > 1
        else "for the same time"
    )


EXPERIMENT = Experiment(
    name="accumulation",
    title="Four small batches for one large one",
    measures="the gradients of the same rows in one batch and in pieces, and time and peak memory of a step of both",
    why="a batch that does not fit can be taken in pieces whose gradients are added up. It should be the same step for "
    "less memory, and it is paid for in time",
    reading="the shorter bar of memory is what is saved, the longer bar of time what it costs. Gradients are the same "
    "where they differ by no more than rounding",
    pictures=(
        Picture(
            title="Time of a step", kind="bars", y="seconds", series=("device", "way"), unit="s", where={"kind": "step"}
        ),
        Picture(
            title="Memory at its peak",
            kind="bars",
            y="bytes",
            series=("device", "way"),
            unit="B",
            where={"kind": "memory"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
    job=RunSpec(dataset="digits", model="cnn", batch_size=64, optimizer="adam", learning_rate=0.001, epochs=40),
)
