"""How many CPU threads an operator gets: measured on a copy of the job, with a preference for one. Never changes the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.hardware import usable_cpus
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.batches import RowsChangedError
from epochtop.engine.step.step import Step

CLEARLY_FASTER = 0.8
"""All threads are used if a step takes less than this share of the time with one thread."""


def choose(spec: RunSpec, device: torch.device, copied_step: Callable[[], Step]) -> list[str]:
    """Time a few steps of a copy with one thread and with all, and set the number. All threads must be clearly faster.

    The risk is not symmetric: if the machine gets busy later, many threads make tiny operators 30 times slower.
    `copied_step` makes a step on a copy of the job. Returns a note of the measurement. Generators do not change. Raises
    RowsChangedError if steps change the rows in place.
    """
    if spec.threads or device.type != "cpu":
        return []
    all_threads = usable_cpus() // spec.processes
    torch.set_num_threads(1)
    if all_threads < 2:
        return []
    try:
        with torch.random.fork_rng(devices=[]):
            before = _Times.of(copied_step())
            torch.set_num_threads(all_threads)
            together = _Times.of(copied_step())
            torch.set_num_threads(1)
            after = _Times.of(copied_step())
    except RowsChangedError:
        raise
    except Exception as error:  # the run itself reports it, with the user's line
        torch.set_num_threads(1)
        why = "out of memory" if is_out_of_memory(error) else type(error).__name__
        return [f"threads 1: no step could be timed, {why}"]
    faster = together.clearly_faster_than(before) and together.clearly_faster_than(after)
    threads = all_threads if faster else 1
    torch.set_num_threads(threads)
    one_s, all_s = min(before.mean, after.mean), together.mean
    return [
        f"threads {threads}: a step takes {one_s * 1e3:.3g} ms with 1 thread, {all_s * 1e3:.3g} ms with {all_threads}"
    ]


@dataclass(frozen=True)
class _Times:
    """Seconds of a step."""

    median: float
    mean: float
    """With the steps in which one thread is interrupted and the others wait for it."""

    @classmethod
    def of(cls, step: Step, max_steps: int = 20, max_s: float = 0.05) -> _Times:
        """Times of `step`, after one step that is not counted."""
        step()
        times: list[float] = []
        while len(times) < max_steps and sum(times) < max_s:
            started_at = perf_counter()
            step()
            times.append(perf_counter() - started_at)
        return cls(sorted(times)[len(times) // 2], sum(times) / len(times))

    def clearly_faster_than(self, other: _Times) -> bool:
        """By the median and by the mean: an interruption in either measurement must not decide alone."""
        return self.median < CLEARLY_FASTER * other.median and self.mean < CLEARLY_FASTER * other.mean
