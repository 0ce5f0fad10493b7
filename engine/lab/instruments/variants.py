"""Ways to take the steps of one job, beside each other: time of a step, memory at its peak, the same gradients or not.

A way is a set of changes to the fields of a run. Imports no torch before it measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochtop.engine.lab import statistics
from epochtop.engine.lab.experiment import ExperimentContext, Row
from epochtop.engine.lab.instruments.sampling import Case, interleave
from epochtop.engine.lab.statistics import Difference, Figure, difference, figure, grouped, select, values, with_spread
from epochtop.engine.protocol.spec import Invalid

if TYPE_CHECKING:
    from torch import Tensor

    from epochtop.engine.job.job import Job
    from epochtop.engine.job.workload import Workload

Changes = Mapping[str, Any]
ROUNDS = 3
"""Of memory, which hardly differs from time to time."""


@dataclass(frozen=True)
class Built:
    """Ways that the job of one device can be taken."""

    device: str
    jobs: Mapping[str, Job]
    workload: Workload | None


def built(bench: ExperimentContext, device: str, ways: Mapping[str, Changes]) -> tuple[Built, list[Row]]:
    """A job a way, all with the same threads, and a row for each that cannot be, with its reason.

    Raises Invalid where the first way cannot be.
    """
    from epochtop.engine.lab.instruments.jobs import job_of

    jobs: dict[str, Job] = {}
    left_out: list[Row] = []
    workload: Workload | None = None
    for name, changes in ways.items():
        bench.check()
        bench.say(f"building {name} on {device}")
        try:
            jobs[name] = job_of(bench.spec, device, workload, **{"threads": _threads(bench, jobs), **changes})
        except Invalid as error:
            if not jobs:
                raise
            left_out.append({"kind": "left_out", "device": device, "way": name, "why": str(error)})
            continue
        workload = jobs[name].workload
    return Built(device, jobs, workload), left_out


def _threads(bench: ExperimentContext, jobs: Mapping[str, Job]) -> int:
    """Those of the first job, which has chosen them."""
    import torch

    return torch.get_num_threads() if jobs else bench.spec.threads


def memory(bench: ExperimentContext, these: Built, ways: Mapping[str, Changes]) -> Iterator[Row]:
    """Bytes at the peak of building the job and taking two steps: weights, gradients, optimizer, activations."""
    import torch

    from epochtop.engine.lab.instruments.allocation import peak_bytes, peak_is_seen
    from epochtop.engine.lab.instruments.jobs import job_of

    device, threads = torch.device(these.device), torch.get_num_threads()
    if not peak_is_seen(bench, device):
        return
    for turn in range(1 if bench.quick else ROUNDS):
        for name in these.jobs:
            bench.check()
            changes = {"threads": threads, **ways[name]}

            def steps(changes: Changes = changes) -> object:
                job = job_of(bench.spec, these.device, these.workload, **changes)
                job.step()
                return job, job.step()

            yield {
                "kind": "memory",
                "device": these.device,
                "way": name,
                "round": turn,
                "bytes": peak_bytes(device, steps),
            }


def steps(
    bench: ExperimentContext, these: Built, ways: Mapping[str, Changes], seconds: float | None = None
) -> Iterator[Row]:
    """Seconds of a step of each way, in turn; `own` marks the way that the job takes without a change."""
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated
    from epochtop.engine.lab.instruments.tf32 import with_tf32

    device = torch.device(these.device)
    cases = [
        Case(
            {"kind": "step", "device": these.device, "way": name, "own": _own(bench, ways[name])},
            with_tf32(job.spec.precision == "tf32", repeated(device, job.step)),
        )
        for name, job in these.jobs.items()
    ]
    yield from interleave(bench, cases, seconds)


def _own(bench: ExperimentContext, changes: Changes) -> int:
    return int(all(getattr(bench.spec, name) == value for name, value in changes.items()))


def deviation(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference between two sets of gradients, as a share of the largest gradient of its parameter.

    Infinite where a gradient is not finite, and where one is that should be 0.
    """
    return max((_apart(one, other) for one, other in zip(found, wanted, strict=True)), default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    apart, largest = float((one - other).abs().max()), float(other.abs().max())
    if not math.isfinite(apart):
        return math.inf
    return apart / largest if largest else math.inf if apart else 0.0


# --- concluding --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A way beside the one that it is compared with, on one device."""

    device: str
    way: str
    other: str
    time: Difference | None
    memory: Figure | None
    other_memory: Figure | None

    @property
    def memory_ratio(self) -> float | None:
        """Of memory at the peak."""
        if self.memory is None or self.other_memory is None or not self.other_memory.median:
            return None
        return self.memory.median / self.other_memory.median

    @property
    def saves(self) -> bool:
        """Whether it needs less memory, by more than its figures differ among themselves."""
        if self.memory is None or self.other_memory is None:
            return False
        return self.other_memory.median - self.memory.median > self.other_memory.spread + self.memory.spread

    @property
    def compared(self) -> bool:
        """Whether times were compared often enough to tell them apart."""
        return self.time is not None and self.time.ratio.count > 2

    def memory_words(self) -> str:
        """In a sentence."""
        if self.memory is None or self.other_memory is None:
            return "memory was not measured"
        ratio = self.memory_ratio or 0.0
        told = f"{with_spread(self.memory, 'B')} instead of {with_spread(self.other_memory, 'B')}"
        if not self.saves and ratio <= 1:
            return f"no difference in memory: {told}"
        return f"at its peak {self.way} holds {ratio:.3g} × the memory of {self.other}: {told}"

    def time_words(self) -> str:
        """In a sentence."""
        return self.time.words(self.way, self.other) if self.time is not None else "time was not measured"


def pair(rows: Sequence[Row], device: str, way: str, other: str) -> Pair:
    """What was measured of two ways."""
    mine = select(rows, device=device)
    sizes = [values(select(mine, kind="memory", way=name), "bytes") for name in (way, other)]
    found = [figure(each) if each else None for each in sizes]
    return Pair(
        device, way, other, difference(select(mine, kind="step", way=way), select(mine, kind="step", way=other)), *found
    )


def step_words(rows: Sequence[Row], device: str, way: str) -> str:
    """`a step of fp32 takes 61 µs (60 … 63)`; empty where it was not measured."""
    took = values(select(rows, kind="step", device=device, way=way), "seconds")
    return f"{device}: a step of {way} takes {with_spread(figure(took))}" if took else ""


def left_out(rows: Sequence[Row]) -> list[str]:
    """What was not measured, and why."""
    return [
        f"{row.get('device')}: {row.get('way')} was not measured: {row.get('why')}"
        for row in select(rows, kind="left_out")
    ]


def refused(rows: Sequence[Row], devices: Sequence[str], names: Sequence[str]) -> list[str]:
    """Why, where every device refused all of these ways; empty where one of them can be measured, or was not tried."""
    every = all(select(rows, kind="left_out", device=device, way=way) for device in devices for way in names)
    return left_out(rows) if every else []


def gradient_words(largest: Sequence[float], tolerance: float) -> str:
    """How far gradients are apart, in a sentence; `largest` is empty where that is no number."""
    if not largest:
        return "gradients are not finite, or some are not 0 that should be"
    if max(largest) <= tolerance:
        return f"gradients differ by at most {max(largest):.1e} of a parameter's largest, within {tolerance:.0e}"
    return f"gradients differ by {max(largest):.1e} of a parameter's largest, more than {tolerance:.0e}"


def quartiles_apart(rows: Sequence[Row], what: str = "times of one way") -> str:
    """How far step times of one way differ, in a sentence."""
    return statistics.quartiles_apart(what, grouped(select(rows, kind="step"), ("device", "way"), "seconds").values())
