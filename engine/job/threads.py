"""How many CPU threads an operator gets: measured on a copy of the job, with a preference for one. Never changes the job."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.hardware import usable_cpus
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.step import Step

CLEARLY_FASTER = 0.8
"""All threads are used if a step takes less than this share of the time with one thread."""


def choose(spec: RunSpec, device: torch.device, copied_step: Callable[[], Step]) -> list[str]:
    """Time a few steps of a copy with one thread and with all, and set the number. All threads must be clearly faster.

    The risk is not symmetric: if the machine gets busy later, many threads make tiny operators 30 times slower.
    `copied_step` makes a step on a copy of the job. Returns a note of the measurement. Generators do not change.
    """
    if spec.threads or device.type != "cpu":
        return []
    all_threads = usable_cpus() // spec.processes
    torch.set_num_threads(1)
    if all_threads < 2:
        return []
    try:
        with torch.random.fork_rng(devices=[]):
            one_s = _step_seconds(copied_step())
            torch.set_num_threads(all_threads)
            all_s = _step_seconds(copied_step())
            torch.set_num_threads(1)
            one_s = min(one_s, _step_seconds(copied_step()))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        torch.set_num_threads(1)  # the run itself reports the failed allocation
        return ["threads 1: no step could be timed, out of memory"]
    threads = all_threads if all_s < CLEARLY_FASTER * one_s else 1
    torch.set_num_threads(threads)
    return [
        f"threads {threads}: a step takes {one_s * 1e3:.3g} ms with 1 thread, {all_s * 1e3:.3g} ms with {all_threads}"
    ]


def _step_seconds(step: Step, max_steps: int = 20, max_s: float = 0.05) -> float:
    """Mean seconds of `step`, after one step that is not counted.

    A median would leave out the steps in which one thread is interrupted and the others wait for it.
    """
    step()
    count, total_s = 0, 0.0
    while count < max_steps and total_s < max_s:
        started_at = perf_counter()
        step()
        total_s += perf_counter() - started_at
        count += 1
    return total_s / count
