"""How many CPU threads an operator gets: measured on the job itself, in favor of one."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.hardware import usable_cpus
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.step import Step

CLEARLY_FASTER = 0.8
"""Share of one thread's time that all threads must stay below."""


def choose(spec: RunSpec, device: torch.device, copied_step: Callable[[], Step]) -> list[str]:
    """Time a few steps of a copy with one thread and with all; all must be clearly faster to be taken.

    The stakes are not even: on a machine that gets busy later, many threads make tiny operators 30 times slower.
    `copied_step` makes a step on a copy of the job. Returns a note of what was measured. The generators are left alone.
    """
    if spec.threads or device.type != "cpu":
        return []
    every = usable_cpus() // spec.processes
    torch.set_num_threads(1)
    if every < 2:
        return []
    try:
        with torch.random.fork_rng(devices=[]):
            one_s = _step_seconds(copied_step())
            torch.set_num_threads(every)
            all_s = _step_seconds(copied_step())
            torch.set_num_threads(1)
            one_s = min(one_s, _step_seconds(copied_step()))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        torch.set_num_threads(1)  # the run itself tells what is too large, in its log
        return ["threads 1: no step could be timed, for want of memory"]
    threads = every if all_s < CLEARLY_FASTER * one_s else 1
    torch.set_num_threads(threads)
    return [f"threads {threads}: a step takes {one_s * 1e3:.3g} ms with 1 thread, {all_s * 1e3:.3g} ms with {every}"]


def _step_seconds(step: Step, most_steps: int = 20, most_s: float = 0.05) -> float:
    """Median seconds of `step`, after one that is not counted."""
    step()
    times: list[float] = []
    while len(times) < most_steps and sum(times) < most_s:
        begun = perf_counter()
        step()
        times.append(perf_counter() - begun)
    return sorted(times)[len(times) // 2]
