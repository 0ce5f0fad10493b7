"""Measures a step on every number of threads.

A step is timed with the time for which its threads wait for each other. That wait is what a neighbor costs, so an interrupted
step counts like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter

import torch

from epochtop.engine.hardware import usable_cpus
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.threads.schema import CpuFacts, StepTime
from epochtop.engine.lab.instruments.clocks import elapsed
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import Run, on_threads, restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.spec import Invalid

ALL = 8
"""Up to this many CPUs every number of threads is measured; with more, the powers of 2 and the last."""
ROUNDS = 20
"""Rounds that the time is divided into; more if measurements would be longer than LONGEST_S."""
SHORTEST_S, LONGEST_S = 0.01, 0.1
"""Length of a measurement. A neighbor and a thread take turns on a CPU every few milliseconds, and a measurement has many turns."""


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
    context.note("building the job on cpu")
    job = job_of(context.spec, "cpu")
    own = torch.get_num_threads()
    numbers = sorted({*counts(usable), own})
    context.note(f"running steps with {', '.join(map(str, numbers))} threads")
    step = elapsed(torch.device("cpu"), job.step)
    yield from _rounds(context.after_setup(), {number: on_threads(number, step) for number in numbers}, own)


def counts(usable: int) -> list[int]:
    """Numbers of threads to measure with this many usable CPUs."""
    if usable <= ALL:
        return list(range(1, usable + 1))
    return [*(1 << power for power in range((usable - 1).bit_length())), usable]


def _rounds(context: ExperimentContext, runs: Mapping[int, Run], own: int) -> Iterator[StepTime]:
    """Steps on every number of threads in turn, every other round backwards; `own` is the number that a run of the job uses."""
    for run in runs.values():
        context.check()
        run(2)
    seconds = context.left_s()
    end = perf_counter() + seconds
    window_s = max(SHORTEST_S, min(LONGEST_S, seconds / ROUNDS / len(runs)))
    turn = 0
    while True:
        for number in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            context.check()
            if turn and perf_counter() > end:
                return
            step_s, repeats = _mean(runs[number], window_s)
            yield StepTime(threads=number, own=int(number == own), round=turn, repeats=repeats, seconds=step_s)
        turn += 1


def _mean(run: Run, seconds: float) -> tuple[float, int]:
    """The mean seconds of a step, over steps that take `seconds` together, and their number."""
    total_s, count = 0.0, 0
    while total_s < seconds:
        total_s += run(1)
        count += 1
    return total_s / count, count
