"""Measures a step on every number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from epochtop.engine.hardware import usable_cpus
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.threads.schema import CpuFacts, StepTime
from epochtop.engine.lab.instruments.clocks import repeated
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import Case, interleave, on_threads, restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.spec import Invalid

ALL = 8
"""Up to this many CPUs every number of threads is measured; with more, the powers of 2 and the last."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `cpus` (usable ones) and `step`. Raises Invalid if the CPU is not measured."""
    if "cpu" not in context.devices:
        devices = ", ".join(context.devices)
        raise Invalid("device", f"threads belong to the CPU, but the device is {devices}; use cpu or auto")
    usable = usable_cpus()
    yield CpuFacts(usable=usable)
    if usable == 1:
        context.cannot_see.append("more than 1 thread: this process may use only 1 CPU")
    cases = _cases(context, usable)
    yield from interleave(context.after_setup(), cases)


def counts(usable: int) -> list[int]:
    """Numbers of threads to measure with this many usable CPUs."""
    if usable <= ALL:
        return list(range(1, usable + 1))
    return [*(1 << power for power in range((usable - 1).bit_length())), usable]


def _cases(context: ExperimentContext, usable: int) -> list[Case[StepTime]]:
    """Steps with every number of threads, and with the number that a run of the job uses, which is its `own`."""
    context.note("building the job on cpu")
    job = job_of(context.spec, "cpu")
    own = torch.get_num_threads()
    numbers = sorted({*counts(usable), own})
    context.note(f"running steps with {', '.join(map(str, numbers))} threads")
    run = repeated(torch.device("cpu"), job.step)
    return [
        Case(partial(StepTime, threads=number, own=int(number == own)), on_threads(number, run)) for number in numbers
    ]
