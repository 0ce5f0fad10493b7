"""What a run would do, and every check that needs no training."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import torch

from epochtop.engine.data.load import file_of
from epochtop.engine.device.select import choose_device, free_bytes
from epochtop.engine.job import memory_estimate
from epochtop.engine.job.workload import Workload
from epochtop.engine.models import fsdp_units
from epochtop.engine.protocol.requests import Plan
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec


def resolved(spec: RunSpec) -> RunSpec:
    """The spec with the paths of files made absolute, so that it means the same from any folder."""
    path = file_of(spec)
    if path is not None:
        spec = msgspec.structs.replace(spec, dataset=f"{spec.source}:{path}")
    if spec.task:
        file, _, function = spec.task.rpartition(":")
        spec = msgspec.structs.replace(spec, task=f"{Path(file).expanduser().absolute()}:{function}")
    return spec


def make_plan(spec: RunSpec, workload: Workload, device: torch.device) -> Plan:
    """What a run of `spec` would do, computed without building it."""
    rows = len(workload.train)  # type: ignore[arg-type]
    each = min(spec.batch_size or rows, rows)
    batches = -(-rows // (each * spec.processes)) if spec.batch_size else 1
    steps_per_epoch = -(-batches // spec.accumulate)
    steps = spec.epochs * steps_per_epoch
    summary = memory_estimate.summary_of(spec, workload, each)
    return Plan(
        device=str(device),
        rows=rows,
        test_rows=len(workload.test),  # type: ignore[arg-type]
        validation_rows=len(workload.validation),  # type: ignore[arg-type]
        features=int(np.prod(workload.shape, dtype=np.int64)),
        outputs=workload.outputs,
        parameters=summary.parameters,
        steps=min(steps, spec.max_steps) if spec.max_steps else steps,
        steps_per_epoch=steps_per_epoch,
        memory_bytes=memory_estimate.held_bytes(spec, summary, on_host=device.type == "cpu") + workload.bytes,
        available_bytes=free_bytes(device),
        summary=summary,
    )


def describe(spec: RunSpec, workload: Workload) -> Plan:
    """Check everything about a spec that can be checked without training. Raises Invalid."""
    check(spec)
    device = choose_device(spec.device)
    _check_rules(spec, workload, device)
    made = make_plan(spec, workload, device)
    memory_estimate.check(made, spec)
    return made


def _check_rules(spec: RunSpec, workload: Workload, device: torch.device) -> None:
    if spec.precision == "tf32" and device.type != "cuda":
        raise Invalid("precision", f"tf32 is an arithmetic of NVIDIA GPUs; use fp32 or bf16 on {device}")
    if len(workload.train) < spec.processes:  # type: ignore[arg-type]
        raise Invalid("processes", f"{spec.processes} cannot share {len(workload.train):,} training rows; use fewer")  # type: ignore[arg-type]
    here = min(spec.processes, int(os.environ.get("LOCAL_WORLD_SIZE", spec.processes)))  # torchrun's, on this machine
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise Invalid(
            "processes", f"one a GPU: this machine has {torch.cuda.device_count()}; use at most as many, or device cpu"
        )
    if device.type == "mps" and spec.processes > 1:
        raise Invalid("processes", "are for the CPU and for CUDA; use device cpu, or 1 process")
    if spec.shard and workload.task is not None:
        fsdp_units.check(workload.task.model)
    if spec.accumulate > 1 and not spec.batch_size:
        raise Invalid("accumulate", "needs batches: set batch_size, for example to 64")
    classes = workload.loss in ("cross_entropy", "next_character", "binary_cross_entropy")
    if workload.task is None and not classes:
        for name in ("label_smoothing", "class_weights"):
            if getattr(spec, name):
                raise Invalid(name, f"is for classes; the target of {spec.dataset} is a number")
