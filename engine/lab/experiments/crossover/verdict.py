"""The verdict of `crossover`: which device the job belongs on, and from which size another device is faster.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.differences import Difference, difference
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.crossover.laws import Law, crossing_sentences, laws_of
from epochtop.engine.lab.experiments.crossover.schema import GridStep, JobStep, Limit
from epochtop.engine.lab.experiments.crossover.takeover import takeover_widths, upright_lines, work_sentences
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, grouped, quartiles_apart, rounds_of, select, values, with_spread
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.quantities import format_percent, format_quantity

LIKE = {"resnet": "cnn"}
"""The model of the grid that computes as the job's model does, if that is neither the mlp nor the same model."""


def conclude(findings: Findings) -> Verdict:
    """Where the job belongs and where the GPU is faster; without a GPU, the overhead and speed of the CPU."""
    rows = findings.rows
    grid = of_kind(rows, GridStep)
    laws = laws_of(grid)
    jobs = _jobs(findings, laws)
    if not laws and not jobs:
        return too_few("steps of two sizes or more")
    sides = _sides(jobs)
    takeovers = takeover_widths(grid)
    return Verdict(
        finding="; ".join(filter(None, (_job_finding(jobs, sides), _grid_finding(takeovers, laws, bool(jobs))))),
        evidence=(
            *(_job_evidence(jobs, sides)),
            *(law.evidence() for law in laws),
            *(f"{name}: {words}" for name, words in takeovers.items()),
            *work_sentences(grid),
            *crossing_sentences(laws),
            *_limits(rows),
        ),
        next_step=_next_step(jobs, sides),
        uncertainty=_uncertainty(rows),
        setting={"device": jobs[0].device} if sides is not None and _cpu_wins(sides) else {},
        lines=(*_upright_lines(rows, grid), *(law.line() for law in laws if law.plain)),
    )


class _JobOnDevice:
    """The step of the user's job on one device."""

    def __init__(self, device: str, rows: Sequence[JobStep], time: Figure, law: Law | None) -> None:
        self.device, self.rows, self.time, self._law = device, rows, time, law
        self._mflop = next(iter(values(rows, "mflop")), 0.0)

    @property
    def computing(self) -> float | None:
        """Fraction of the step that its work takes at the grid's speed; None if it is unknown."""
        if self._law is None or not self._law.mflop_s or not self._mflop:
            return None
        return min(1.0, self._mflop * self._law.mflop_s / self.time.median)

    @property
    def room(self) -> float | None:
        """Factor of the work at which a step takes twice as long, by the fit; None if the fit is poor."""
        share = self.computing
        return 1 + 1 / share if share and self._law is not None and self._law.plain else None

    def evidence(self) -> str:
        """A sentence on the step."""
        step = f"your job on {self.device}: a step of {format_quantity(self._mflop, 'MFLOP')} takes {with_spread(self.time)}"
        if self.computing is None or self._law is None:
            return f"{step}; how much of it is computing is unknown"
        return (
            f"{step}; at the {format_quantity(self._law.gflops, 'GFLOP/s')} of the {self._law.model}s its work takes "
            f"{format_quantity(self._mflop * self._law.mflop_s, 's')}, {format_percent(self.computing)} of the step"
        )


def _jobs(findings: Findings, laws: Sequence[Law]) -> list[_JobOnDevice]:
    """The job by device, the CPU first."""
    kind = "mlp" if findings.spec.task else findings.spec.model
    name = LIKE.get(kind, kind if kind == "cnn" else "mlp")
    steps = of_kind(findings.rows, JobStep)
    jobs = []
    for (device,), time in grouped(steps, ("device",), "seconds").items():
        law = next((law for law in laws if (law.device, law.model) == (device, name)), None)
        jobs.append(_JobOnDevice(str(device), select(steps, device=device), time, law))
    return sorted(jobs, key=lambda job: job.device != "cpu")


def _sides(jobs: Sequence[_JobOnDevice]) -> Difference | None:
    """The job's step on the CPU over the step on another device; None if there are not both."""
    if len(jobs) < 2 or jobs[0].device != "cpu":
        return None
    return difference(jobs[0].rows, jobs[-1].rows)


def _cpu_wins(sides: Difference) -> bool:
    return sides.faster


def _job_finding(jobs: Sequence[_JobOnDevice], sides: Difference | None) -> str:
    """Where the job belongs, or, on one device, what its step is made of; empty without the job's step."""
    if not jobs:
        return ""
    if sides is None:
        return _one_device_finding(jobs[0])
    here, there = jobs[0], jobs[-1]
    times = f"{format_quantity(here.time.median, 's')} on the CPU and {format_quantity(there.time.median, 's')} on {there.device}"
    if sides.direction == "few":
        return f"too few rounds to tell the devices apart: a step of your job takes {times}"
    if sides.direction == "same":
        return f"no difference between the devices larger than {sides.resolution} can be seen for your job: a step takes {times}"
    if sides.faster:
        return f"use the CPU for this job: {sides.words('a step there', f'on {there.device}')}; {times}"
    return f"use {there.device} for this job: {sides.inverse.words('a step there', 'on the CPU')}; {times}"


def _one_device_finding(job: _JobOnDevice) -> str:
    step = f"a step of your job takes {format_quantity(job.time.median, 's')} on {job.device}"
    share = job.computing
    if share is None:
        return step
    mostly = "computing" if share >= 0.5 else "overhead"
    return f"{step} and is mostly {mostly}: its work takes {format_percent(share)} of it"


def _grid_finding(takeovers: dict[str, str], laws: Sequence[Law], brief: bool) -> str:
    """The sizes from which another device is faster, or below which steps are overhead; only the first if `brief`."""
    if takeovers:
        return "; ".join(f"{name}: {words}" for name, words in list(takeovers.items())[: 1 if brief else None])
    overhead = [
        f"the {law.model} on {law.device} below {format_quantity(law.knee_mflop, 'MFLOP')}"
        for law in laws
        if law.knee_mflop and law.plain
    ]
    if overhead:
        return f"steps are mostly overhead for {' and '.join(overhead)}"
    return "" if brief else "no size was found below which steps are mostly overhead"


def _job_evidence(jobs: Sequence[_JobOnDevice], sides: Difference | None) -> list[str]:
    compared = [sides.words(f"your step on {jobs[0].device}", f"on {jobs[-1].device}")] if sides is not None else []
    return compared + [job.evidence() for job in jobs]


def _upright_lines(rows: Sequence[Measurement], grid: Sequence[GridStep]) -> list[Line]:
    times = [
        time.median
        for steps in (of_kind(rows, JobStep), grid)
        for time in grouped(steps, ("device", "model", "mflop"), "seconds").values()
    ]
    return upright_lines(grid, min(times), max(times))


def _limits(rows: Sequence[Measurement]) -> list[str]:
    return [
        f"{row.model} on {row.device}: width {row.width} at batch {row.batch} and more work was left out: "
        + ("it takes too long" if row.why == "time" else row.why)
        for row in of_kind(rows, Limit)
    ]


def _next_step(jobs: Sequence[_JobOnDevice], sides: Difference | None) -> str:
    if not jobs:
        return "run the experiment to its end, to compare your job"
    if sides is None:
        return _one_device_next_step(jobs[0])
    if not sides.distinct:
        return "use either device; the idle one is as good"
    if _cpu_wins(sides):
        return "run it with device=cpu; a GPU needs a larger batch or a wider model"
    return f"leave it on {jobs[-1].device}, which device=auto chooses"


def _one_device_next_step(job: _JobOnDevice) -> str:
    share = job.computing
    if share is None:
        return "run `epochtop lab anatomy`, which splits the step into its parts"
    if share < 0.5:
        room = job.room
        factor = f" (by the fit, {format_quantity(room)} × the work takes twice the time)" if room is not None else ""
        return (
            f"try a larger batch or a wider model, which cost little here{factor}; `epochtop lab executors` measures how "
            "much overhead executor=graph removes"
        )
    return "reduce the work per step, or use a faster arithmetic: `epochtop lab matmul` shows which are fast here"


def _uncertainty(rows: Sequence[Measurement]) -> str:
    points = [
        *grouped(of_kind(rows, JobStep), ("device",), "seconds").values(),
        *grouped(of_kind(rows, GridStep), ("device", "model", "width", "batch"), "seconds").values(),
    ]
    return (
        f"{quartiles_apart('times of one point', points)}, in {rounds_of(points)}; speed grows with size, so one overhead "
        "and one speed are an approximation. Steps are eager: executor=graph has less overhead"
    )
