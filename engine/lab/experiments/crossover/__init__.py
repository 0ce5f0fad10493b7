"""From which size of a model and a batch on the GPU is faster than the CPU, and where the user's job stands.

Steps of an mlp and a cnn over width × batch, on every device. They are the engine's own eager steps, on the digits that
come with scikit-learn, the same batch again and again: what a run would execute, without what its data would add. A step
takes `overhead + work / speed`; the work is counted in the operators that it calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Picture, Row
from epochtop.engine.lab.experiments.crossover.verdict import conclude
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.instruments.sizes import grow, longest_s
from epochtop.engine.lab.statistics import values
from epochtop.engine.protocol.spec import Invalid, RunSpec

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job
    from epochtop.engine.job.workload import Workload

WIDTHS = {"mlp": (16, 64, 256, 1024), "cnn": (4, 16, 64)}
BATCHES = (16, 64, 256, 1024)
QUICK_WIDTHS = {"mlp": (16, 256), "cnn": (4, 16)}
QUICK_BATCHES = (16, 256)
GROWTH = 2.25
"""Of the work, from one point to the next, on average: the largest point then takes 5/9 of the time of all."""
ROUNDS = 5
SPREAD_S = 0.005
"""Of a step on the CPU with one thread, from which on it may be worth more threads."""


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` job (the user's), grid (width × batch of each model), and limit (where the grid ended)."""
    if bench.devices == ("cpu",) and bench.spec.device == "auto":
        bench.cannot_see.append("from which width and batch on a GPU would take over")
    yield from _measure(bench)


def _measure(bench: ExperimentContext) -> Iterator[Row]:
    from epochtop.engine.job.workload import load_workload

    mine = [case for device in bench.devices for case in _own(bench, device)]
    if not mine:
        raise Invalid("", f"there is no device for this job: {'; '.join(bench.cannot_see)}")
    digits = _digits(bench.spec)
    workload = load_workload(digits)
    cases: list[Case] = []
    each_s = 0.7 * bench.left_s() / (len(bench.devices) * len(WIDTHS))
    most_s = longest_s(each_s, GROWTH, ROUNDS)
    for device in bench.devices:  # the CPU first: what is set of a GPU's arithmetic for its own jobs then stays
        for model in WIDTHS:
            bench.say(f"finding sizes for the {model} on {device}")
            steps = _Steps(digits, device, model, workload)
            points = _points(bench.quick, model)
            found = grow(bench, [(work, partial(steps.case, *point)) for work, *point in points], most_s)
            steps.choose_threads()
            cases += sorted(found.cases, key=_place)
            if len(found.cases) < len(points):
                yield _limit(device, model, points[len(found.cases)], found.expected_s, found.error)
    bench.say("taking steps")
    yield from interleave(bench, [*mine, *cases], rounds=ROUNDS)


def _digits(spec: RunSpec) -> RunSpec:
    """Of the user's job, only what concerns every model: the arithmetic, the optimizer, threads."""
    return RunSpec(
        dataset="digits",
        test_fraction=0.0,
        precision=spec.precision,
        optimizer=spec.optimizer,
        deterministic=spec.deterministic,
        threads=spec.threads,
    )


def _points(quick: bool, model: str) -> list[tuple[float, int, int]]:
    """Work (about, and of no unit), width and batch of each point, by work."""
    widths, batches = (QUICK_WIDTHS, QUICK_BATCHES) if quick else (WIDTHS, BATCHES)
    # a cnn's convolutions between its own channels outweigh those from one channel and to ten classes
    power = 1 if model == "mlp" else 2
    return sorted((float(width**power * batch), width, batch) for width in widths[model] for batch in batches)


def _place(case: Case) -> tuple[float, float]:
    width, batch = (values([case.labels], name)[0] for name in ("width", "batch"))
    return width, batch


def _limit(device: str, model: str, point: tuple[float, int, int], expected_s: float | None, error: Any) -> Row:
    _, width, batch = point
    why = "time" if expected_s is not None else str(error).partition("\n")[0][:200]
    return {"kind": "limit", "device": device, "model": model, "width": width, "batch": batch, "why": why}


class _Steps:
    """Steps of one model on one device, of any width and batch."""

    def __init__(self, digits: RunSpec, device: str, model: str, workload: Workload) -> None:
        without = device == "cpu" and digits.precision == "tf32"
        self._spec = msgspec.structs.replace(digits, model=model, precision="fp32" if without else digits.precision)
        self._device, self._stuff = device, workload
        self._threads = digits.threads or 1
        self._last: Job | None = None
        self._runs: list[_Run] = []

    def case(self, width: int, batch: int) -> Case:
        """Steps on the first `batch` digits."""
        from epochtop.engine.lab.instruments.jobs import job_of
        from epochtop.engine.step.step import make_step

        size: dict[str, Any] = {"hidden": (width,)} if self._spec.model == "mlp" else {"width": width}
        job = job_of(self._spec, self._device, self._stuff, batch_size=batch, threads=self._threads, **size)
        step = make_step(dataclasses.replace(job.parts, batches=self._stuff.first(batch, job.device)))
        run = _Run(job, step, self._threads)
        self._last = job
        self._runs.append(run)
        labels: Row = {"kind": "grid", "device": self._device, "model": self._spec.model, "width": width}
        return Case({**labels, "batch": batch, "mflop": _mflop(step)}, run)

    def choose_threads(self) -> None:
        """Let the largest job choose, as runs do, for all whose steps are long; others are fastest with one thread."""
        import torch

        from epochtop.engine.job import threads
        from epochtop.engine.job.job import copied_step

        long = [run for run in self._runs if run.took_s > SPREAD_S]
        if self._spec.threads or self._device != "cpu" or self._last is None or not long:
            return
        threads.choose(
            msgspec.structs.replace(self._last.spec, threads=0), self._last.device, partial(copied_step, self._last)
        )
        for run in long:
            run.threads = torch.get_num_threads()


class _Run:
    """A case's steps, with the threads that they are to have."""

    def __init__(self, job: Job, step: Callable[[], object], threads: int) -> None:
        from epochtop.engine.lab.instruments.clocks import repeated

        self._steps = repeated(job.device, step)
        self._cpu = job.device.type == "cpu"
        self.threads = threads
        self.took_s = 0.0
        """What one took, when last measured."""

    def __call__(self, times: int) -> float:
        import torch

        if self._cpu and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        total_s = self._steps(times)
        self.took_s = total_s / times
        return total_s


def _own(bench: ExperimentContext, device: str) -> list[Case]:
    """The user's job on a device, on its own batches; none where it cannot be built there, but on others. Raises Invalid."""
    import torch

    from epochtop.engine.lab.instruments.jobs import job_of

    bench.check()
    bench.say(f"building the job on {device}")
    try:
        job = job_of(bench.spec, device)
    except Invalid as error:
        if len(bench.devices) == 1:
            raise
        bench.cannot_see.append(f"the job on {device}: {error}")
        return []
    run = _Run(job, job.step, torch.get_num_threads())
    rows = bench.spec.batch_size or job.plan.rows
    labels: Row = {"kind": "job", "device": device, "model": "yours", "width": None, "batch": min(rows, job.plan.rows)}
    return [Case({**labels, "mflop": _mflop(job.step)}, run)]


def _mflop(step: Callable[[], object]) -> float:
    """Millions of floating-point operations of the products and convolutions of a step, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops()) / 1e6


EXPERIMENT = Experiment(
    name="crossover",
    title="From which size on the GPU pays",
    measures="the time of a step of an mlp and a cnn over width × batch on every device, the work in each step, and the "
    "step of your job, in turn and repeatedly",
    why="a GPU computes much faster than a CPU, but each step costs it more before it computes at all. Small jobs are all "
    "overhead, and faster on the CPU",
    reading="a curve is flat while a step is overhead, and rises where it is computing. Where the GPU's curve falls below "
    "the CPU's it takes over; `yours` is the step of your job",
    pictures=(
        Picture(
            title="Time of a step over the work in it",
            kind="lines",
            x="mflop",
            y="seconds",
            series=("device", "model"),
            unit="s",
            x_unit="MFLOP",
            x_title="MFLOP",
            y_title="seconds",
            x_log=True,
            y_log=True,
        ),
        Picture(
            title="Time of a step by width and batch",
            kind="table",
            y="seconds",
            series=("model", "width", "batch", "device"),
            unit="s",
            columns=("model", "width", "batch", "device", "seconds"),
        ),
    ),
    measure=measure,
    conclude=conclude,
    job=RunSpec(),
)
