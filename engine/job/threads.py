"""How many CPU threads an operator gets: measured on the job itself, in favor of one."""

from __future__ import annotations

import copy
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from epochtop.engine.hardware import usable_cpus
from epochtop.engine.job.oom_advice import is_out_of_memory
from epochtop.engine.step.step import Parts, make_step
from epochtop.engine.step.torch_rules import make_update

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job

CLEARLY_FASTER = 0.8
"""Share of one thread's time that all threads must stay below."""


def choose(job: Job) -> list[str]:
    """Time a few steps of a copy with one thread and with all; all must be clearly faster to be taken.

    The stakes are not even: on a machine that gets busy later, many threads make tiny operators 30 times slower.
    Returns a note of what was measured. The job and the generators are left alone.
    """
    if job.spec.threads or job.device.type != "cpu":
        return []
    every = usable_cpus() // job.spec.processes
    torch.set_num_threads(1)
    if every < 2:
        return []
    try:
        with torch.random.fork_rng(devices=[]):
            one_s = _step_seconds(job)
            torch.set_num_threads(every)
            all_s = _step_seconds(job)
            torch.set_num_threads(1)
            one_s = min(one_s, _step_seconds(job))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        torch.set_num_threads(1)  # the run itself tells what is too large, in its log
        return ["threads 1: no step could be timed, for want of memory"]
    threads = every if all_s < CLEARLY_FASTER * one_s else 1
    torch.set_num_threads(threads)
    return [f"threads {threads}: a step takes {one_s * 1e3:.3g} ms with 1 thread, {all_s * 1e3:.3g} ms with {every}"]


def _step_seconds(job: Job, most_steps: int = 20, most_s: float = 0.05) -> float:
    """Median seconds of a bare step on a copy of the model."""
    model = copy.deepcopy(job.model)
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    parts = Parts(
        model=model,
        criterion=job.material.criterion(job.spec, job.device),
        update=make_update(job.spec, parameters),
        batches=job.material.first(job.spec.batch_size, job.device),
        parameters=parameters,
        autocast=job.judge.autocast,
    )
    step = make_step(parts)
    step()
    times: list[float] = []
    while len(times) < most_steps and sum(times) < most_s:
        begun = perf_counter()
        step()
        times.append(perf_counter() - begun)
    return sorted(times)[len(times) // 2]
