"""`auto`: whether the steps of a run become a graph, from which step on, and whether it is as fast as it should be.

Whether it is tried and from which step on it is used is computed from the job alone, so that runs that are repeated
have the same losses bit for bit. The run begins eagerly at once; the graph is built beside it. Before it is used, a
few steps are taken both ways and undone: one that is wrong or clearly not faster is not used, which the log keeps, so
that a run that goes on after a kill decides alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from time import perf_counter

import torch
from torch import Tensor

from epochtop.engine.execution.c.graph import CGraph
from epochtop.engine.execution.eager import Eager
from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.execution.inputs import rows_a_step, untouched
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.engine.step.window import LossWindow

OVERHEAD_S = 4e-6
"""What an operator costs beside its arithmetic, about: 4 … 10 µs were measured on the CPU, launches included on GPUs."""
FLOPS = {"cpu": 2e10, "cuda": 1e13}
"""Arithmetic of one thread in C (33 GFLOP/s were measured on AVX2), and of a GPU, judged low."""
LEAST_S = {"cpu": 0.4, "cuda": 3.0}
"""Overhead that a run must have left for a graph to pay. On a GPU the capture holds the run up."""
EAGER_CALLS = 10_000
"""Operators of the steps before the graph is used: some tenths of a second, about what a compiler needs."""
CALLS = 40
"""Operators of a step, as long as it has not been recorded."""
CLEARLY_FASTER = 0.9
"""Share of an eager step's time that a step must stay below."""
SAME, JUDGED = 1e-4, 3
"""Relative difference of losses that is rounding in so many steps."""
TRIAL_S, MANY = 0.02, 10_000
"""How long steps are timed, and how many at most."""


@dataclass(frozen=True)
class Found:
    """An executor that is faster, and the measurement that says so."""

    executor: Executor
    why: str


class ExecutorSearch:
    """One run's search. `at` is the step at which the graph is due; None where eager steps stay, for the reason `why`."""

    def __init__(self, job: Job, step: int, rate: Rate) -> None:
        """Begins to build where it pays, for a run that is about to take its steps from `step` on."""
        self._job, self._rate = job, rate
        self._graph: CGraph | None = None
        self._building: Thread | None = None
        self._error: Exception | None = None
        self.at: int | None = None
        self.why = ""
        try:
            self.at = self._plan(step)
        except Unsupported as unfit:
            self.why = str(unfit)

    def _plan(self, step: int) -> int | None:
        job, kind = self._job, self._job.device.type
        if job.spec.task:
            raise Unsupported(
                "what your own code does beside its operators would not be repeated; executor=graph if nothing is"
            )
        if job.spec.processes > 1 or kind not in FLOPS:
            return None
        if operations(job) / FLOPS[kind] > CALLS * OVERHEAD_S:
            raise Unsupported("its operators are large")
        if CALLS * OVERHEAD_S * job.plan.steps < LEAST_S[kind]:
            return None
        if kind == "cuda":
            return _due(CALLS, step, job)
        self._graph = CGraph(job)
        at = _due(self._graph.calls, step, job)
        if at is not None:
            self._building = Thread(target=self._build, args=(self._graph.build,), daemon=True, name="builds a graph")
            self._building.start()
        return at

    def _build(self, build: Callable[[], None]) -> None:
        try:
            build()
        except Exception as error:  # raised again where the graph is due
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Give the compiler so much time. Whether it is done."""
        if self._building is not None:
            self._building.join(seconds)
        return self._building is None or not self._building.is_alive()

    def result(self, step: int) -> Found | None:
        """The graph, if it is right and faster than eager steps. Ends the search."""
        self.at = None
        try:
            if self._error is not None:
                raise self._error
            return self._judged(self._graph or self._captured(), step)
        except Unsupported as unfit:
            self.why = str(unfit)
            return None

    def _captured(self) -> Executor:
        from epochtop.engine.execution.cuda_graph import captured

        return captured(self._job)

    def _judged(self, executor: Executor, step: int) -> Found:
        if wrong := difference(self._job, executor, step, self._rate):
            raise Unsupported(wrong)
        seconds, fast = (step_seconds(self._job, each, step, self._rate) for each in (Eager(self._job), executor))
        told = f"a step takes {format_quantity(fast, 's')} instead of {format_quantity(seconds, 's')}"
        if fast > CLEARLY_FASTER * seconds:
            raise Unsupported(f"as a graph {told}")
        return Found(executor, told)


def _due(calls: int, step: int, job: Job) -> int | None:
    """The step at which so many operators a step have been taken; None where a run is past it, or over before."""
    at = max(1, EAGER_CALLS // calls)
    return at if step <= at < job.plan.steps else None


def operations(job: Job) -> float:
    """Floating-point operations of a step, about: forward and twice that backward, for each parameter and row."""
    return 6.0 * job.plan.parameters * rows_a_step(job)


def difference(job: Job, executor: Executor, step: int, rate: Rate) -> str:
    """What is wrong with the losses of an executor, laid beside eager ones; empty if nothing is."""
    if job.spec.dropout:
        return ""  # other random numbers
    eager, other = _trial(job, Eager(job), step, rate)[0], _trial(job, executor, step, rate)[0]
    close = torch.allclose(eager, other, rtol=SAME, atol=1e-5, equal_nan=True)
    return "" if close else f"its losses are others: {other.tolist()} instead of {eager.tolist()}"


def step_seconds(job: Job, executor: Executor, step: int, rate: Rate) -> float:
    """Median seconds of a step."""
    times: list[float] = []
    while len(times) < 5:
        times.append(_trial(job, executor, step, rate, MANY, TRIAL_S / 5)[1])
    return sorted(times)[len(times) // 2]


def _trial(
    job: Job, executor: Executor, step: int, rate: Rate, steps: int = JUDGED, most_s: float = math.inf
) -> tuple[Tensor, float]:
    """Losses of some steps that are undone, on the host, and the seconds of one."""
    steps = min(steps, max(1, job.plan.steps - step))
    with untouched(job):
        window, taken = LossWindow(job.device), 0
        begun = perf_counter()
        while taken < steps and perf_counter() - begun < most_s:
            taken += executor.take(window, step + taken, steps - taken, rate)
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
        took = perf_counter() - begun
        reading = window.turn(0.0) or window.drain()
    assert reading is not None
    return reading.losses.cpu(), took / taken
