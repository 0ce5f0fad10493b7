"""Activations computed again in the backward pass instead of kept: memory saved against time paid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, refused, too_few
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.sampling import threads_kept
from epochtop.engine.lab.statistics import select, values
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job

KEPT, AGAIN = "kept", "again"
WAYS: dict[str, variants.Changes] = {KEPT: {"checkpoint_activations": False}, AGAIN: {"checkpoint_activations": True}}
TOLERANCE = 1e-5
"""Share of the largest gradient of a parameter by which others may differ."""
CLEAR = 0.95
"""Of the memory at most, for a saving to be worth its time."""


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` gradients, memory, step, and left_out, which has a reason. Raises Invalid for a model without blocks."""
    if bench.spec.task:
        raise Invalid("task", "computes its own model as it is written; there is nothing that could be computed again")
    check(msgspec.structs.replace(bench.spec, **WAYS[AGAIN]))
    for device in bench.devices:
        these, left_out = variants.built(bench, device, WAYS)
        yield from left_out
        if len(these.jobs) < len(WAYS):
            continue
        kept, again = these.jobs.values()
        yield {"kind": "gradients", "device": device, "deviation": _deviation(kept, again)}
        yield from variants.memory(bench, these, WAYS)
        yield from variants.steps(
            bench, these, WAYS, bench.left_s() / (len(bench.devices) - bench.devices.index(device))
        )


def _deviation(kept: Job, again: Job) -> float:
    """Between gradients of the same rows and weights; what dropout draws is the same as well."""
    import torch

    from epochtop.engine.step.fast_path import gradients_of

    batch = kept.batches.next_batches(1)[0]
    found = []
    for job in (again, kept):
        torch.manual_seed(0)
        found.append(gradients_of(job.parts.parameters)(job.parts.criterion(job.parts.model(batch.x), batch.y)))
    return variants.deviation(*found)


def conclude(found: Findings) -> Verdict:
    """What is saved and what it costs; a setting where memory is saved."""
    pairs = [variants.pair(found.rows, device, AGAIN, KEPT) for device in found.devices]
    pairs = [each for each in pairs if each.time is not None]
    if not pairs:
        why = variants.refused(found.rows, found.devices, [AGAIN])
        return refused(why) if why else too_few("steps of both ways")
    main = pairs[-1]
    largest = values(select(found.rows, kind="gradients", device=main.device), "deviation")
    same = bool(largest) and max(largest) <= TOLERANCE
    clear = main.saves and (main.memory_ratio or 1.0) <= CLEAR
    return Verdict(
        finding=f"on {main.device}, with activations computed {AGAIN}: {main.memory_words()}; {main.time_words()}",
        evidence=(
            *filter(None, (variants.step_words(found.rows, each.device, way) for each in pairs for way in WAYS)),
            *(f"{each.device}: {each.memory_words()}" for each in pairs),
            f"{main.device}: {variants.gradient_words(largest, TOLERANCE)}",
            *variants.left_out(found.rows),
        ),
        next_step=(
            "set checkpoint_activations where the batch that you want does not fit; where it fits, it only costs time"
            if clear and same
            else "leave checkpoint_activations off: the gradients are not known to be the same"
            if clear
            else "set checkpoint_activations where the batch that you want does not fit: what that saves was not measured here"
            if main.memory is None
            else "leave checkpoint_activations off: there is nothing to save for this job that is worth the time"
        ),
        uncertainty=(
            f"{variants.quartiles_apart(found.rows)}; what is saved grows with batch and depth, and weights, gradients and "
            "optimizer stay as they are"
        ),
        setting={"checkpoint_activations": "yes"} if clear and same else {},
    )


EXPERIMENT = Experiment(
    name="checkpointing",
    title="Compute activations again, or keep them",
    measures="peak memory and time of a step with all activations kept for the backward pass, and with those of each block "
    "computed again when they are needed",
    why="in deep models most of the memory of a step is activations that wait for the backward pass. Computing them again "
    "costs about one more forward pass",
    reading="the shorter bar of memory is what is saved, the longer bar of time what it costs",
    pictures=(
        Picture(
            title="Memory at its peak",
            kind="bars",
            y="bytes",
            series=("device", "way"),
            unit="B",
            where={"kind": "memory"},
        ),
        Picture(
            title="Time of a step", kind="bars", y="seconds", series=("device", "way"), unit="s", where={"kind": "step"}
        ),
    ),
    measure=measure,
    conclude=conclude,
    job=RunSpec(dataset="digits", hidden=(128,) * 12, batch_size=1024, optimizer="sgd", learning_rate=0.05, epochs=40),
)
