"""How rows should come to a training step: kept on the device, streamed, or through torch's DataLoader.

Every way feeds the same step of the same job, in turn. Workers are started for each measurement and ended after it;
what that takes is a figure of its own, and batches that they made in advance are used up before time is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    difference,
    figure,
    quantity,
    quartiles_apart,
    select,
    value_of,
    values,
    with_spread,
)
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import Invalid, RunSpec, declared

if TYPE_CHECKING:
    from epochtop.engine.job.job import Job
    from epochtop.engine.lab.experiments.loader.sources import Batch, Feed

SAME = "one batch"
"""The same batch again and again, on the device: no way can be faster."""
SLOW = 0.01
"""Share of the budget from which a batch is too slow to try every way."""
PLACEMENTS = {"resident": "device", "streamed": "stream"}


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far to go."""

    most_workers: Annotated[
        int, declared("worker processes to try, at most one a usable CPU", "experiment", "processes", ge=0, le=64)
    ] = 4


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` job (what it does now), batch (a batch alone), step (fed by it) and start (of its workers)."""
    from epochtop.engine.job.workload import load_workload
    from epochtop.engine.lab.instruments.jobs import job_of

    bench.say("building the job")
    workload = load_workload(bench.spec)
    rows = len(workload.train)  # type: ignore[arg-type]
    if not 0 < bench.spec.batch_size < rows:
        raise Invalid(
            "batch_size", f"all {rows:,} rows are one batch, which stays on the device; set 1 to {rows - 1:,}"
        )
    cases: list[Case] = []
    started: list[Row] = []
    for device in _devices(bench):
        job = job_of(bench.spec, device, workload, accumulate=1)
        yield _now(job)
        cases += _cases(bench, job, started)
    for row in interleave(bench, cases):
        yield row
        yield from ({**start, "round": row["round"]} for start in started)
        started.clear()


def _devices(bench: ExperimentContext) -> tuple[str, ...]:
    if bench.quick and len(bench.devices) > 1:
        bench.cannot_see.append(f"for want of time everything was measured on {bench.devices[-1]} alone")
        return bench.devices[-1:]
    return bench.devices


def _now(job: Job) -> Row:
    """What the job does without a change, and which of its fields changes that."""
    from epochtop.engine.lab.experiments.loader.sources import way
    from epochtop.engine.step.batches import LoaderBatches, StreamedBatches

    batches = job.batches
    if isinstance(batches, LoaderBatches):
        name = way(job.spec.workers, job.device.type == "cuda")
    else:
        name = "streamed" if isinstance(batches, StreamedBatches) else "resident"
    sets = "workers" if isinstance(batches, LoaderBatches) else "placement"
    return {"kind": "job", "device": str(job.device), "way": name, "batches": batches.per_epoch, "sets": sets}


def _cases(bench: ExperimentContext, job: Job, started: list[Row]) -> list[Case]:
    from epochtop.engine.lab.experiments.loader import sources

    slow = _batch_s(sources.loader(job, 0, False)) > SLOW * bench.budget_s
    if slow:
        bench.cannot_see.append("batches take so long to put together that only a few numbers of workers were tried")
    pins = (False, True) if job.device.type == "cuda" else (False,)
    ways = [
        *sources.own(job),
        *(sources.loader(job, count, pin) for count in _workers(bench, job, slow) for pin in pins),
    ]
    names = {feed.labels["way"] for feed in ways}
    if "streamed" in names and "resident" not in names:
        bench.cannot_see.append(f"rows that stay on {job.device}: they do not fit its free memory")
    steps = [_step(job, feed) for feed in (sources.same(job), *ways)]
    return steps if slow else [*steps, *(_batch(job, feed, started) for feed in ways)]


def _batch_s(feed: Feed) -> float:
    from time import perf_counter

    with feed.open() as batch:
        batch()
        begun = perf_counter()
        batch()
        return perf_counter() - begun


def _workers(bench: ExperimentContext, job: Job, slow: bool) -> list[int]:
    from epochtop.engine.data.dataset import Rows
    from epochtop.engine.hardware import usable_cpus

    assert isinstance(bench.fields, Fields)
    most = min(bench.fields.most_workers, usable_cpus())
    counts = {0, most} if slow or bench.quick else set(range(most + 1))
    return sorted(counts if isinstance(job.workload.train, Rows) else counts | {job.spec.workers})


def _step(job: Job, feed: Feed) -> Case:
    """A whole training step, fed in this way."""
    from dataclasses import replace

    from epochtop.engine.step.step import make_step

    def work(batch: Any) -> Callable[[], object]:
        return make_step(replace(job.parts, batches=batch))

    return _case("step", job, feed, work, [])


def _batch(job: Job, feed: Feed, started: list[Row]) -> Case:
    """A batch on the device, and nothing done with it."""
    return _case("batch", job, feed, lambda batch: batch, started)


def _case(kind: str, job: Job, feed: Feed, work: Callable[[Batch], Callable[[], object]], started: list[Row]) -> Case:
    from time import perf_counter

    from epochtop.engine.lab.instruments.clocks import repeated, wait_for

    own = int(feed.labels["way"] == _now(job)["way"])
    labels: Row = {"kind": kind, "device": str(job.device), **feed.labels, "own": own}

    def run(times: int) -> float:
        opened = perf_counter()
        with feed.open() as batch:
            once = work(batch)
            once()
            wait_for(job.device)
            start_s = perf_counter() - opened
            repeated(job.device, once)(feed.ahead)
            seconds = repeated(job.device, once)(times)
            closed = perf_counter()
        if feed.labels.get("workers"):
            started.append({**labels, "kind": "start", "seconds": start_s + perf_counter() - closed})
        return seconds

    return Case(labels, run)


# --- concluding --------------------------------------------------------------------------------------------------


def conclude(found: Findings) -> Verdict:
    """The way that feeds a step fastest on the device that trains, and whether that is more than noise."""
    told = [feeding for device in found.devices if (feeding := _Feeding.of(found.rows, device)) is not None]
    if not told:
        return too_few("steps that are fed in at least two ways")
    main = told[-1]
    return Verdict(
        finding=main.finding(),
        evidence=tuple(line for feeding in told for line in feeding.evidence()),
        next_step=main.next_step(),
        uncertainty=main.uncertainty(),
        setting=main.setting(),
    )


class _Feeding:
    """What steps of one device take, by the way their rows come. The start of workers is spread over an epoch."""

    def __init__(self, rows: Sequence[Row], device: str, job: Row) -> None:
        self._device, self._job = device, job
        self._starts = _by_way(select(rows, kind="start"))
        self._alone = _by_way(select(rows, kind="batch"))
        steps = _by_way(select(rows, kind="step"))
        self._same = steps.pop(SAME, [])
        self._steps = {name: self._spread(name, mine) for name, mine in steps.items()}
        self._times = {name: figure(values(mine, "seconds")) for name, mine in self._steps.items()}
        self.best = min(self._times, key=lambda name: self._times[name].median)
        now = str(job.get("way"))
        self.now = now if now in self._steps else self.best

    @classmethod
    def of(cls, rows: Sequence[Row], device: str) -> _Feeding | None:
        mine = select(rows, device=device)
        jobs, ways = select(mine, kind="job"), set(_by_way(select(mine, kind="step"))) - {SAME}
        return cls(mine, device, jobs[0]) if jobs and len(ways) > 1 else None

    def _spread(self, name: str, rows: Sequence[Row]) -> list[Row]:
        start, batches = self.start(name), value_of(self._job, "batches")
        if start is None or not batches:
            return list(rows)
        more = start.median / batches
        return [{**row, "seconds": (value_of(row, "seconds") or 0.0) + more} for row in rows]

    def start(self, name: str) -> Figure | None:
        """Of starting and ending the workers of a way."""
        found = values(self._starts.get(name, []), "seconds")
        return figure(found) if found else None

    def against(self, first: str, second: str) -> Difference | None:
        """What steps of one way take of another's."""
        return difference(self._steps[first], self._steps[second])

    def gain(self, name: str) -> Difference | None:
        """What steps of now take of those of this way; None where that is not more than noise."""
        found = self.against(self.now, name)
        return found if found is not None and found.distinct and found.ratio.median > 1 else None

    def ceiling(self) -> Difference | None:
        """What steps of now take of those that wait for no rows."""
        return difference(self._steps[self.now], self._same)

    @property
    def waits(self) -> bool:
        """Whether steps that wait for no rows are faster, by more than noise."""
        found = self.ceiling()
        return found is not None and found.distinct and found.ratio.median > 1

    def finding(self) -> str:
        now, best = self._times[self.now], self._times[self.best]
        gain = self.gain(self.best)
        if gain is not None:
            low, middle, high = gain.ratio.low, gain.ratio.median, gain.ratio.high
            return (
                f"on {self._device} a step is fed fastest by {_words(self.best)}: {quantity(best.median, 's')}; with "
                f"{_words(self.now)}, as it is now, it takes {middle:.3g} × ({low:.3g} … {high:.3g}) that"
            )
        free = "" if self.waits else ", and waiting for rows costs nothing that can be seen"
        return (
            f"on {self._device} no way feeds a step faster than {_words(self.now)}, as it is now: it takes "
            f"{quantity(now.median, 's')}{free}"
        )

    def evidence(self) -> list[str]:
        lines = ["a step takes " + _list({_with(name): found for name, found in self._times.items()})]
        if self._alone:
            alone = {_with(name): figure(values(rows, "seconds")) for name, rows in self._alone.items()}
            lines.append("a batch alone takes " + _list(alone))
        ceiling = self.ceiling()
        if ceiling is not None:
            lines.append(ceiling.words(f"a step {_with(self.now)}", "one that waits for no rows"))
        lines += [line for name in self._times if (line := self._against_now(name))]
        starts = {_with(name): found for name in self._starts if (found := self.start(name)) is not None}
        if starts:
            lines.append(
                f"starting and ending workers takes {_list(starts)}, once an epoch; it is part of the figures of a step "
                f"here, spread over the {value_of(self._job, 'batches') or 0:,.0f} batches of an epoch"
            )
        return [f"{self._device}: {line}" for line in lines]

    def _against_now(self, name: str) -> str:
        found = self.against(name, self.now) if name != self.now else None
        return found.words(f"a step {_with(name)}", f"one {_with(self.now)}") if found is not None else ""

    def _settable(self) -> dict[str, dict[str, str]]:
        """Ways that a field of a run chooses."""
        if self._job.get("sets") == "placement":
            return {name: {"placement": PLACEMENTS[name]} for name in PLACEMENTS if name in self._steps}
        pinned = int(self._device.startswith("cuda"))
        mine = {name: rows[0] for name, rows in self._steps.items() if rows[0].get("pinned") == pinned}
        return {name: {"workers": str(row["workers"])} for name, row in mine.items()}

    def setting(self) -> dict[str, str]:
        """Of the fastest way that a run can be given, if that is faster than now."""
        ways = self._settable()
        best = min(ways, key=lambda name: self._times[name].median, default=self.now)
        return ways[best] if best != self.now and self.gain(best) is not None else {}

    def next_step(self) -> str:
        setting = self.setting()
        if setting:
            return "train with " + ", ".join(f"{name}={value}" for name, value in setting.items())
        if self.now == "resident":
            return "leave it: rows lie on the device already. `epochtop lab anatomy` tells what the step itself consists of"
        if self.waits:
            return "no setting helps here: put less work into a row, or give the task its rows as tensors"
        return "leave the loader as it is: `epochtop lab anatomy` tells what the step itself consists of"

    def uncertainty(self) -> str:
        rounds = min(found.count for found in self._times.values())
        return (
            f"{rounds} rounds; {quartiles_apart('times of one way', self._times.values())}. Workers need CPUs of their own: "
            "where others use these too, more of them help less. Rows were in memory when they were read again"
        )


def _by_way(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if value_of(row, "seconds") is not None:
            found.setdefault(str(row.get("way")), []).append(row)
    return found


def _words(name: str) -> str:
    return f"{name} rows" if name in PLACEMENTS else f"a DataLoader with {name}"


def _with(name: str) -> str:
    return f"with {name} rows" if name in PLACEMENTS else f"with {name}"


def _list(figures: dict[str, Figure]) -> str:
    return ", ".join(f"{with_spread(found)} {name}" for name, found in figures.items())


EXPERIMENT = Experiment(
    name="loader",
    title="How rows should come to a step",
    measures="a batch alone and a training step fed with it, for rows kept on the device, rows streamed from the host, and "
    "torch's DataLoader with no worker up to one a usable CPU, with and without pinned memory on CUDA; the start of the "
    "workers; a step that waits for no rows",
    why="a DataLoader puts a batch together row by row in Python, and its workers send what they made through shared "
    "memory. For small rows that takes longer than the step; for rows that are expensive to make, workers hide it",
    reading=f"the bar `{SAME}` is the step itself: no loader can be faster. What a bar is longer than that is waiting for "
    "rows. A batch alone may take longer than a step adds where it is made while the step before it runs",
    pictures=(
        Picture(
            title="A training step, by the way its rows come",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            y_title="seconds a step",
            where={"kind": "step"},
        ),
        Picture(
            title="A batch alone",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            y_title="seconds a batch",
            where={"kind": "batch"},
        ),
        Picture(
            title="Starting and ending workers",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            y_title="seconds an epoch",
            where={"kind": "start"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
    job=RunSpec(dataset="digits", hidden=(64,), batch_size=64),
)
