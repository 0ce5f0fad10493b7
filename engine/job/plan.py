"""What a run would do, and every check that needs no training. Never builds a model on the device."""

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

FSDP_ON_CPUS = "2.7"
"""The first torch whose `fully_shard` runs on the CPU (pytorch #145935) and leaves out parameters."""


def resolved(spec: RunSpec) -> RunSpec:
    """The spec with absolute paths, so that it means the same in every folder."""
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
    batch_rows = min(spec.batch_size or rows, rows)
    batches = -(-workload.rows_per_epoch(spec) // (batch_rows * spec.processes)) if spec.batch_size else 1
    steps_per_epoch = -(-batches // spec.accumulate)
    steps = spec.epochs * steps_per_epoch
    with workload.untouched(torch.device("cpu")):
        summary = memory_estimate.summary_of(spec, workload, batch_rows)
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
        memory_bytes=memory_estimate.held_bytes(spec, summary, on_host=device.type == "cpu")
        + memory_estimate.rows_bytes(spec, workload, device),
        available_bytes=free_bytes(device),
        summary=summary,
        problem=workload.problem,
        notes=workload.notes,
        columns=workload.split.columns if workload.split is not None else (),
    )


def describe(spec: RunSpec, workload: Workload) -> Plan:
    """The plan of a run, after every check that needs no training. Raises Invalid."""
    check(spec)
    device = choose_device(spec.device)
    _check_rules(spec, workload, device)
    plan = make_plan(spec, workload, device)
    memory_estimate.check(plan, spec)
    return plan


def _check_rules(spec: RunSpec, workload: Workload, device: torch.device) -> None:
    if spec.precision == "tf32" and device.type != "cuda":
        raise Invalid("precision", f"tf32 needs an NVIDIA GPU; use fp32 or bf16 on {device}")
    if spec.precision == "tf32" and torch.version.hip is not None:
        raise Invalid("precision", "tf32 needs an NVIDIA GPU; use fp32 or bf16 on an AMD GPU")
    if spec.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise Invalid("optimizer", f"muon needs torch 2.9 or later, and this is torch {torch.__version__}; use adamw")
    if len(workload.train) < spec.processes:  # type: ignore[arg-type]
        raise Invalid("processes", f"{spec.processes} cannot share {len(workload.train):,} training rows; use fewer")  # type: ignore[arg-type]
    local = min(
        spec.processes, int(os.environ.get("LOCAL_WORLD_SIZE", spec.processes))
    )  # torchrun's number for this machine
    if device.type == "cuda" and local > torch.cuda.device_count():
        raise Invalid(
            "processes", f"one process per GPU: this machine has {torch.cuda.device_count()}; use fewer, or device cpu"
        )
    if device.type == "mps" and spec.processes > 1:
        raise Invalid("processes", "more than one needs device cpu or cuda; mps trains with 1 process")
    if spec.shard and torch.__version__ < FSDP_ON_CPUS:
        raise Invalid("shard", f"needs torch 2.7 or later, and this is torch {torch.__version__}; turn shard off")
    if spec.shard and workload.task is not None:
        fsdp_units.check(workload.task.model)
    if spec.accumulate > 1 and not spec.batch_size:
        raise Invalid("accumulate", "needs batches; set batch_size, for example to 64")
    classes = workload.loss in ("cross_entropy", "next_character", "binary_cross_entropy")
    if workload.task is None and not classes:
        for name in ("label_smoothing", "class_weights"):
            if getattr(spec, name):
                raise Invalid(name, f"needs classes, but the target of {spec.dataset} is a number; leave it out")
