"""A spec turned into something that can be trained: device, model, rows on the device, loss, update, step.

Everything that can be wrong with a spec is found here, before a run directory exists.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from epochtop.engine.data.dataset import Rows
from epochtop.engine.data.load import file_of
from epochtop.engine.device.select import choose_device, free_bytes
from epochtop.engine.distributed.fsdp import Carried, Shards
from epochtop.engine.job import memory_estimate, threads
from epochtop.engine.job.decision_boundary import Boundary, boundary_of
from epochtop.engine.job.workload import Material
from epochtop.engine.models import fsdp_units
from epochtop.engine.protocol.requests import Plan
from epochtop.engine.protocol.schedules import Schedule
from epochtop.engine.protocol.spec import Invalid, RunSpec, check
from epochtop.engine.step.batches import Batches, Loaded, Resident, Share, Streamed, Whole
from epochtop.engine.step.evaluation import Judge, Pieces, pieces
from epochtop.engine.step.step import Average, Parts, Step, make_step
from epochtop.engine.step.torch_rules import make_update
from epochtop.engine.step.update_rules import Update

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Job:
    """What the loop trains, on `device`."""

    spec: RunSpec
    device: torch.device
    model: nn.Module
    names: Sequence[str]
    """Of the parameters that are trained, in the order of the update's."""
    update: Update
    batches: Batches
    average: Average | None
    schedule: Schedule
    parts: Parts
    """What a step is made of."""
    step: Step
    """Taken again and again."""
    judge: Judge
    judged: Pieces
    """What the best weights are judged by: validation rows, else test rows, else the training rows."""
    judged_on: str
    """`validation`, `test` or `train`."""
    test: Pieces
    plan: Plan
    material: Material
    boundary: Boundary | None = None
    """Where it can be drawn: two features, a few classes."""
    shards: Shards | None = None
    """Where the weights are spread over several processes, once these have met; the model lies on the host until then."""
    notes: list[str] = field(default_factory=list)


# --- checking ----------------------------------------------------------------------------------------------


def resolved(spec: RunSpec) -> RunSpec:
    """The spec with the paths of files made absolute, so that it means the same from any folder."""
    path = file_of(spec)
    if path is not None:
        spec = msgspec.structs.replace(spec, dataset=f"{spec.source}:{path}")
    if spec.task:
        file, _, function = spec.task.rpartition(":")
        spec = msgspec.structs.replace(spec, task=f"{Path(file).expanduser().absolute()}:{function}")
    return spec


def plan(spec: RunSpec, stuff: Material, device: torch.device) -> Plan:
    """What a run of `spec` would do, computed without building it."""
    rows = len(stuff.train)  # type: ignore[arg-type]
    each = min(spec.batch_size or rows, rows)
    batches = -(-rows // (each * spec.processes)) if spec.batch_size else 1
    steps_per_epoch = -(-batches // spec.accumulate)
    steps = spec.epochs * steps_per_epoch
    summary = memory_estimate.summary_of(spec, stuff, each)
    return Plan(
        device=str(device),
        rows=rows,
        test_rows=len(stuff.test),  # type: ignore[arg-type]
        validation_rows=len(stuff.validation),  # type: ignore[arg-type]
        features=int(np.prod(stuff.shape, dtype=np.int64)),
        outputs=stuff.outputs,
        parameters=summary.parameters,
        steps=min(steps, spec.max_steps) if spec.max_steps else steps,
        steps_per_epoch=steps_per_epoch,
        memory_bytes=memory_estimate.held_bytes(spec, summary, on_host=device.type == "cpu") + stuff.bytes,
        available_bytes=free_bytes(device),
        summary=summary,
    )


def describe(spec: RunSpec, stuff: Material) -> Plan:
    """Check everything about a spec that can be checked without training. Raises Invalid."""
    check(spec)
    device = choose_device(spec.device)
    _check_rules(spec, stuff, device)
    made = plan(spec, stuff, device)
    memory_estimate.check(made, spec)
    return made


def _check_rules(spec: RunSpec, stuff: Material, device: torch.device) -> None:
    if spec.precision == "tf32" and device.type != "cuda":
        raise Invalid("precision", f"tf32 is an arithmetic of NVIDIA GPUs; use fp32 or bf16 on {device}")
    if len(stuff.train) < spec.processes:  # type: ignore[arg-type]
        raise Invalid("processes", f"{spec.processes} cannot share {len(stuff.train):,} training rows; use fewer")  # type: ignore[arg-type]
    here = min(spec.processes, int(os.environ.get("LOCAL_WORLD_SIZE", spec.processes)))  # torchrun's, on this machine
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise Invalid(
            "processes", f"one a GPU: this machine has {torch.cuda.device_count()}; use at most as many, or device cpu"
        )
    if device.type == "mps" and spec.processes > 1:
        raise Invalid("processes", "are for the CPU and for CUDA; use device cpu, or 1 process")
    if spec.shard and stuff.task is not None:
        fsdp_units.check(stuff.task.model)
    if spec.accumulate > 1 and not spec.batch_size:
        raise Invalid("accumulate", "needs batches: set batch_size, for example to 64")
    classes = stuff.loss in ("cross_entropy", "next_character", "binary_cross_entropy")
    if stuff.task is None and not classes:
        for name in ("label_smoothing", "class_weights"):
            if getattr(spec, name):
                raise Invalid(name, f"is for classes; the target of {spec.dataset} is a number")


# --- building ----------------------------------------------------------------------------------------------


def build(
    spec: RunSpec,
    stuff: Material,
    made: Plan,
    share: Share = Share(),  # noqa: B008 - frozen
    checked: bool = True,
) -> Job:
    """Build the model and move the rows. On a GPU this creates its context. Raises Invalid.

    Only where it is `checked`, a job that is estimated not to fit is refused.
    """
    device = torch.device(made.device)
    _set_up(spec, device)
    if checked:
        memory_estimate.check(msgspec.structs.replace(made, available_bytes=free_bytes(device, exact=True)), spec)
    torch.manual_seed(spec.seed)  # nothing may draw from the default generator between here and the model
    model = stuff.model(spec)
    if not spec.shard:
        model = model.to(device)
    if spec.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    notes = list(stuff.notes)
    resident = memory_estimate.resident(spec, stuff, device, notes)
    job = _assemble(spec, stuff, made, model, resident, share)
    job.notes = notes + threads.choose(job)
    return job


def _set_up(spec: RunSpec, device: torch.device) -> None:
    if spec.threads:
        torch.set_num_threads(spec.threads)
    if spec.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(spec.deterministic)  # imports torch's compilers, 2 s and 100 MB
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec.precision == "tf32"


def _assemble(spec: RunSpec, stuff: Material, made: Plan, model: nn.Module, resident: bool, share: Share) -> Job:
    device = torch.device(made.device)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        raise Invalid("task" if spec.task else "model", "has no parameter that can be trained")
    loss = stuff.criterion(spec, device)
    autocast = AUTOCAST.get(spec.precision)
    average = Average(model.state_dict(keep_vars=True), spec.ema) if spec.ema else None
    update = Carried(spec.learning_rate) if spec.shard else make_update(spec, list(trained.values()))
    batches = _batches(spec, stuff, device, resident, share)
    parts = Parts(
        model=model,
        criterion=loss,
        update=update,
        batches=batches,
        parameters=list(trained.values()),
        accumulate=spec.accumulate,
        clip_norm=spec.clip_norm,
        autocast=autocast,
        average=average,
        processes=share.of,
    )
    rows = min(spec.batch_size or made.rows, made.rows)
    careful = bool(spec.task) or spec.oom_retry
    test = pieces(stuff.test, device, resident, rows, careful)
    judged, judged_on = test, "test"
    if made.validation_rows:
        judged, judged_on = pieces(stuff.validation, device, resident, rows, careful), "validation"
    elif not made.test_rows:
        judged, judged_on = pieces(stuff.train, device, resident, rows, careful), "train"
    return Job(
        spec=spec,
        device=device,
        model=model,
        names=list(trained),
        update=update,
        batches=batches,
        average=average,
        schedule=Schedule(spec, made.steps),
        parts=parts,
        step=make_step(parts),
        judge=Judge(stuff.judging, stuff.metrics, device, autocast),
        judged=judged,
        judged_on=judged_on,
        test=test,
        plan=made,
        material=stuff,
        boundary=boundary_of(stuff, device),
    )


def _batches(spec: RunSpec, stuff: Material, device: torch.device, resident: bool, share: Share) -> Batches:
    train = stuff.train
    if not isinstance(train, Rows):
        return Loaded(train, spec.batch_size or len(train), spec.seed, share, device, spec.workers)  # type: ignore[arg-type]
    whole = spec.batch_size == 0 or spec.batch_size * share.of >= len(train)
    if not resident and not whole:
        return Streamed(train, spec.batch_size, spec.seed, share, device)
    x, y = torch.from_numpy(train.x).to(device), torch.from_numpy(train.y).to(device)
    if spec.channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return Whole(x, y, share) if whole else Resident(x, y, spec.batch_size, spec.seed, share)
