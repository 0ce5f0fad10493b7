"""Measures steps over width × batch on every device, and steps of the user's job."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import torch
from torch.utils.flop_counter import FlopCounterMode

from epochtop.engine.job import threads
from epochtop.engine.job.job import Job, copied_step
from epochtop.engine.job.workload import Workload, load_workload
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.crossover.schema import GridStep, JobStep, Limit
from epochtop.engine.lab.instruments.clocks import repeated
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import Case, interleave, restores_threads
from epochtop.engine.lab.instruments.sizes import SizeSeries, grow, longest_s
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.step.step import make_step

WIDTHS = {"mlp": (16, 64, 256, 1024), "cnn": (4, 16, 64)}
BATCHES = (16, 64, 256, 1024)
QUICK_WIDTHS = {"mlp": (16, 256), "cnn": (4, 16)}
QUICK_BATCHES = (16, 256)
GROWTH = 2.25
"""Average growth of the work from point to point: the largest point then takes 5/9 of the total time."""
ROUNDS = 5
LONG_STEP_S = 0.005
"""Time of a step on the CPU with one thread from which more threads may help."""

StepCase = Case[JobStep | GridStep]
Point = tuple[float, int, int]
"""Work (roughly, without a unit), width and batch."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `job` (the user's), `grid` (width × batch of each model) and `limit` (the end of a grid)."""
    if context.devices == ("cpu",) and context.spec.device == "auto":
        context.cannot_see.append("the width and batch from which a GPU would be faster")
    yield from _measure(context)


def _measure(context: ExperimentContext) -> Iterator[Measurement]:
    job_cases = [case for device in context.devices for case in _job_case(context, device)]
    if not job_cases:
        raise Invalid("", f"no device can run this job: {'; '.join(context.cannot_see)}")
    digits = _digits(context.spec)
    workload = load_workload(digits)
    grid_cases: list[StepCase] = []
    share_s = 0.7 * context.left_s() / (len(context.devices) * len(WIDTHS))
    most_s = longest_s(share_s, GROWTH, ROUNDS)
    for device in context.devices:  # the CPU first: settings of a GPU's arithmetic by its own jobs then remain
        for model in WIDTHS:
            context.note(f"finding sizes for the {model} on {device}")
            steps = _GridSteps(digits, device, model, workload)
            points = _points(context.quick, model)
            series = grow(context, [(work, partial(steps.case, *size)) for work, *size in points], most_s)
            steps.choose_threads()
            ordered = sorted(zip(points, series.cases, strict=False), key=lambda placed: placed[0][1:])
            grid_cases += [case for _, case in ordered]
            if len(series.cases) < len(points):
                yield _limit(device, model, points[len(series.cases)], series)
    context.note("running steps")
    yield from interleave(context, [*job_cases, *grid_cases], rounds=ROUNDS)


def _digits(spec: RunSpec) -> RunSpec:
    """The settings of the user's job that concern every model: arithmetic, optimizer, threads."""
    return RunSpec(
        dataset="digits",
        test_fraction=0.0,
        precision=spec.precision,
        optimizer=spec.optimizer,
        deterministic=spec.deterministic,
        threads=spec.threads,
    )


def _points(quick: bool, model: str) -> list[Point]:
    """The points of a grid, by their work."""
    widths, batches = (QUICK_WIDTHS, QUICK_BATCHES) if quick else (WIDTHS, BATCHES)
    # in a cnn the convolutions between hidden channels outweigh the first and the last layer
    power = 1 if model == "mlp" else 2
    return sorted((float(width**power * batch), width, batch) for width in widths[model] for batch in batches)


def _limit(device: str, model: str, point: Point, series: SizeSeries[Any]) -> Limit:
    _, width, batch = point
    why = "time" if series.expected_s is not None else str(series.error).partition("\n")[0][:200]
    return Limit(device=device, model=model, width=width, batch=batch, why=why)


class _GridSteps:
    """Steps of one model on one device, of any width and batch."""

    def __init__(self, digits: RunSpec, device: str, model: str, workload: Workload) -> None:
        no_tf32 = device == "cpu" and digits.precision == "tf32"
        self._spec = msgspec.structs.replace(digits, model=model, precision="fp32" if no_tf32 else digits.precision)
        self._device, self._workload = device, workload
        self._threads = digits.threads or 1
        self._last: Job | None = None
        self._runs: list[_Run] = []

    def case(self, width: int, batch: int) -> StepCase:
        """Steps on the first `batch` digits."""
        size: dict[str, Any] = {"hidden": (width,)} if self._spec.model == "mlp" else {"width": width}
        job = job_of(self._spec, self._device, self._workload, batch_size=batch, threads=self._threads, **size)
        step = make_step(dataclasses.replace(job.parts, batches=self._workload.first(batch, job.device)))
        run = _Run(job, step, self._threads)
        self._last = job
        self._runs.append(run)
        record = partial(GridStep, device=self._device, model=self._spec.model, width=width, batch=batch)
        return Case(partial(record, mflop=_mflop(step)), run)

    def choose_threads(self) -> None:
        """Let the largest job choose its threads as a run does, and use them for all long steps; others use one."""
        long = [run for run in self._runs if run.step_s > LONG_STEP_S]
        if self._spec.threads or self._device != "cpu" or self._last is None or not long:
            return
        threads.choose(
            msgspec.structs.replace(self._last.spec, threads=0), self._last.device, partial(copied_step, self._last)
        )
        for run in long:
            run.threads = torch.get_num_threads()


class _Run:
    """The steps of a case, with its number of threads."""

    def __init__(self, job: Job, step: Callable[[], object], threads: int) -> None:
        self._steps = repeated(job.device, step)
        self._cpu = job.device.type == "cpu"
        self.threads = threads
        self.step_s = 0.0
        """Seconds of a step in the last measurement."""

    def __call__(self, times: int) -> float:
        if self._cpu and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        total_s = self._steps(times)
        self.step_s = total_s / times
        return total_s


def _job_case(context: ExperimentContext, device: str) -> list[StepCase]:
    """The user's job on its own batches; empty if this device, of several, cannot run it. Raises Invalid."""
    context.check()
    context.note(f"building the job on {device}")
    try:
        job = job_of(context.spec, device)
    except Invalid as error:
        if len(context.devices) == 1:
            raise
        context.cannot_see.append(f"the job on {device}: {error}")
        return []
    run = _Run(job, job.step, torch.get_num_threads())
    batch = min(context.spec.batch_size or job.plan.rows, job.plan.rows)
    return [Case(partial(JobStep, device=device, model="yours", batch=batch, mflop=_mflop(job.step)), run)]


def _mflop(step: Callable[[], object]) -> float:
    """Millions of floating-point operations in the products and convolutions of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops()) / 1e6
