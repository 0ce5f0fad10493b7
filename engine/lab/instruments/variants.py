"""Measures variants of one job, each a set of changes to the fields of a run: step time, peak memory, gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.job.job import Job
from epochtop.engine.job.workload import Workload
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.allocation import peak_bytes, peak_is_seen
from epochtop.engine.lab.instruments.clocks import repeated
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import Case, interleave
from epochtop.engine.lab.instruments.tf32 import with_tf32
from epochtop.engine.lab.pairs import LeftOut, PeakMemory, StepTime
from epochtop.engine.protocol.spec import Invalid

Changes = Mapping[str, Any]
ROUNDS = 3
"""Rounds of memory, which hardly varies."""


@dataclass(frozen=True)
class Variants:
    """The variants of a job that one device can run."""

    device: str
    jobs: Mapping[str, Job]
    workload: Workload | None


def build_variants(
    context: ExperimentContext, device: str, variants: Mapping[str, Changes]
) -> tuple[Variants, list[LeftOut]]:
    """A job per variant, all with the same threads, and a row for each variant that cannot be built.

    Raises Invalid if the first variant cannot be built.
    """
    jobs: dict[str, Job] = {}
    refusals: list[LeftOut] = []
    workload: Workload | None = None
    for name, changes in variants.items():
        context.check()
        context.note(f"building {name} on {device}")
        try:
            jobs[name] = job_of(context.spec, device, workload, **{"threads": _threads(context, jobs), **changes})
        except Invalid as error:
            if not jobs:
                raise
            refusals.append(LeftOut(device=device, way=name, why=str(error)))
            continue
        workload = jobs[name].workload
    return Variants(device, jobs, workload), refusals


def _threads(context: ExperimentContext, jobs: Mapping[str, Job]) -> int:
    """The threads that the first job chose."""
    return torch.get_num_threads() if jobs else context.spec.threads


def memory(context: ExperimentContext, built: Variants, variants: Mapping[str, Changes]) -> Iterator[PeakMemory]:
    """Peak bytes of building the job and running two steps: weights, gradients, optimizer, activations."""
    device, threads = torch.device(built.device), torch.get_num_threads()
    if not peak_is_seen(context, device):
        return
    for turn in range(1 if context.quick else ROUNDS):
        for name in built.jobs:
            context.check()
            work = partial(_two_steps, context, built, {"threads": threads, **variants[name]})
            yield PeakMemory(device=built.device, way=name, round=turn, bytes=peak_bytes(device, work))


def _two_steps(context: ExperimentContext, built: Variants, changes: Changes) -> object:
    job = job_of(context.spec, built.device, built.workload, **changes)
    job.step()
    return job, job.step()


def steps(
    context: ExperimentContext, built: Variants, variants: Mapping[str, Changes], seconds: float
) -> Iterator[StepTime]:
    """Step times of the variants in turn, for `seconds`; `own` marks the job without a change.

    On a busy machine building the variants may have used up the time. Half of the device's share is measured anyway, because a
    single round has no interval.
    """
    seconds = max(seconds, context.budget_s / 2 / len(context.devices))
    device = torch.device(built.device)
    cases = [
        Case(
            partial(StepTime, device=built.device, way=name, own=_is_own(context, variants[name])),
            with_tf32(job.spec.precision == "tf32", repeated(device, job.step)),
        )
        for name, job in built.jobs.items()
    ]
    yield from interleave(context.with_time(seconds), cases, seconds)


def _is_own(context: ExperimentContext, changes: Changes) -> int:
    return int(all(getattr(context.spec, name) == value for name, value in changes.items()))


def deviation(gradients: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest difference between two sets of gradients, as a fraction of the parameter's largest reference gradient.

    Infinite if a gradient is not finite, or not 0 where the reference is 0.
    """
    return max((_deviation(one, other) for one, other in zip(gradients, reference, strict=True)), default=0.0)


def _deviation(gradient: Tensor, reference: Tensor) -> float:
    distance, largest = float((gradient - reference).abs().max()), float(reference.abs().max())
    if not math.isfinite(distance):
        return math.inf
    return distance / largest if largest else math.inf if distance else 0.0
