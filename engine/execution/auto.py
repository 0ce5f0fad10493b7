"""`auto`: whether a run switches from eager steps to a graph, and at which step.

Whether a graph is tried, and at which step it takes over, is computed from the job alone, so that a repeated run has the
same losses bit for bit. The run starts eagerly at once; the graph is built at the same time. Before the switch, a few steps
are taken both ways and undone. A graph with wrong losses, or one that is not clearly faster, is not used. The log records
this decision, so that a run that continues after a kill makes the same one.
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
from epochtop.engine.execution.inputs import rows_per_step, untouched
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.engine.step.window import LossWindow

OVERHEAD_S = 4e-6
"""Approximate overhead of an operator: 4 … 10 µs were measured on the CPU, and on GPUs with the launch."""
FLOPS = {"cpu": 2e10, "cuda": 1e13}
"""Low estimates of the speed of one thread in C (33 GFLOP/s were measured on AVX2) and of a GPU."""
LEAST_S = {"cpu": 0.4, "cuda": 3.0}
"""Smallest total overhead for which a graph pays off. On a GPU the capture delays the run."""
EAGER_CALLS = 10_000
"""Operators to execute before the graph takes over: some tenths of a second, about the time of a compiler."""
CALLS = 40
"""Assumed operators per step, before the step has been recorded."""
CLEARLY_FASTER = 0.9
"""A graph's step must take less than this share of an eager step's time."""
SAME, SAME_HALF, COMPARED_STEPS = 1e-4, 1e-2, 3
"""Relative difference of losses that rounding may cause in this number of steps, in fp32 and in bf16 or fp16."""
TRIALS, TRIAL_S, MAX_TRIAL_STEPS = 5, 0.02, 10_000
"""How many times and how long steps are timed, and how many steps at most each time."""


@dataclass(frozen=True)
class FasterExecutor:
    """An executor that is faster than eager steps, and the measurement."""

    executor: Executor
    why: str


class ExecutorSearch:
    """The search of one run.

    `at` is the step at which the graph takes over; None for eager steps, for the reason in `why`.
    """

    def __init__(self, job: Job, step: int, rate: Rate) -> None:
        """Starts to build the graph, if it pays off, for a run that takes its steps from `step` on."""
        self._job, self._rate = job, rate
        self._graph: CGraph | None = None
        self._building: Thread | None = None
        self._error: Exception | None = None
        self.at: int | None = None
        self.why = ""
        try:
            self.at = self._plan(step)
        except Unsupported as reason:
            self.why = str(reason)

    def _plan(self, step: int) -> int | None:
        job, kind = self._job, self._job.device.type
        if job.spec.task:
            raise Unsupported(
                "graph replay would skip Python side effects in your code; set executor=graph if it has none"
            )
        if job.spec.processes > 1 or kind not in FLOPS:
            return None
        if operations(job) / FLOPS[kind] > CALLS * OVERHEAD_S:
            raise Unsupported("its operators are large, so a graph saves little")
        if CALLS * OVERHEAD_S * job.plan.steps < LEAST_S[kind]:
            return None
        if kind == "cuda":
            return _due(CALLS, step, job)
        self._graph = CGraph(job)
        at = _due(self._graph.calls, step, job)
        if at is not None:
            self._building = Thread(target=self._build, args=(self._graph.build,), daemon=True, name="graph builder")
            self._building.start()
        return at

    def _build(self, build: Callable[[], None]) -> None:
        try:
            build()
        except Exception as error:  # raised again where the graph is due
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the compiler. Whether it has finished."""
        if self._building is not None:
            self._building.join(seconds)
        return self._building is None or not self._building.is_alive()

    def result(self, step: int) -> FasterExecutor | None:
        """The graph, if its losses are right and it is faster than eager steps. Ends the search."""
        self.at = None
        try:
            if self._error is not None:
                raise self._error
            return self._compared(self._graph or self._captured(), step)
        except Unsupported as reason:
            self.why = str(reason)
            return None

    def _captured(self) -> Executor:
        from epochtop.engine.execution.cuda_graph import captured

        return captured(self._job)

    def _compared(self, executor: Executor, step: int) -> FasterExecutor:
        if wrong := difference(self._job, executor, step, self._rate):
            raise Unsupported(wrong)
        eager_s = step_seconds(self._job, Eager(self._job), step, self._rate)
        graph_s = step_seconds(self._job, executor, step, self._rate)
        times = f"a step takes {format_quantity(graph_s, 's')} instead of {format_quantity(eager_s, 's')}"
        if graph_s > CLEARLY_FASTER * eager_s:
            raise Unsupported(f"as a graph {times}")
        return FasterExecutor(executor, times)


def _due(calls: int, step: int, job: Job) -> int | None:
    """The step at which a graph of `calls` operators takes over; None if that is before `step` or after the run's end."""
    at = max(1, EAGER_CALLS // calls)
    return at if step <= at < job.plan.steps else None


def operations(job: Job) -> float:
    """Approximate floating-point operations of a step: 2 forward and 4 backward, per parameter and row."""
    return 6.0 * job.plan.parameters * rows_per_step(job)


def difference(job: Job, executor: Executor, step: int, rate: Rate) -> str:
    """How the losses of an executor differ from eager ones; empty if they do not."""
    if job.spec.dropout:
        return ""  # the random numbers differ
    eager, other = _trial(job, Eager(job), step, rate)[0], _trial(job, executor, step, rate)[0]
    tolerance = SAME if job.parts.autocast is None else SAME_HALF
    close = torch.allclose(eager, other, rtol=tolerance, atol=1e-5, equal_nan=True)
    return "" if close else f"its losses differ: {other.tolist()} instead of {eager.tolist()}"


def step_seconds(job: Job, executor: Executor, step: int, rate: Rate) -> float:
    """Seconds of a step: the least of some trials, because other processes can only add to them."""
    return min(_trial(job, executor, step, rate, MAX_TRIAL_STEPS, TRIAL_S / TRIALS)[1] for _ in range(TRIALS))


def _trial(
    job: Job, executor: Executor, step: int, rate: Rate, steps: int = COMPARED_STEPS, max_s: float = math.inf
) -> tuple[Tensor, float]:
    """Losses of some steps, on the host, and seconds per step. The steps are undone."""
    steps = min(steps, max(1, job.plan.steps - step))
    with untouched(job):
        window, done = LossWindow(job.device), 0
        started_at = perf_counter()
        while done < steps and perf_counter() - started_at < max_s:
            done += executor.run(window, step + done, steps - done, rate)
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
        seconds = perf_counter() - started_at
        reading = window.turn(0.0) or window.drain()
    assert reading is not None
    return reading.losses.cpu(), seconds / done
