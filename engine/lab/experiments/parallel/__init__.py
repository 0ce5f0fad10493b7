"""What several processes bring that train one model: the speed-up of a step of the same rows, and its efficiency.

They are the engine's own ranks with DistributedDataParallel, one thread each on the CPU or one GPU each. Against them
stand one process alone, one process with as many threads, and DataParallel where there are GPUs for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.statistics import Difference, difference, figure, quantity, select, value_of, values
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.spec import RunSpec, declared

if TYPE_CHECKING:
    from epochtop.engine.job.workload import Workload
    from epochtop.engine.lab.experiments.parallel.ranks import Crew

PROCESSES, THREADS, DATA_PARALLEL = "processes", "threads", "DataParallel"
WHO = {PROCESSES: "{} processes", THREADS: "1 process with {} threads", DATA_PARALLEL: "DataParallel on {} GPUs"}
LEAST_S = 1.0
"""Measured for every number of processes, also where starting them took all the time."""
ROUNDS_APART = 1000
"""Rounds of two numbers of processes were not measured together and have other numbers."""
SETTLING_STEPS = 3
"""Steps after the number of threads was changed, before time is taken."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far to go."""

    most_processes: Annotated[
        int,
        declared("processes to try, at most one a usable CPU or GPU", "experiment", "processes", ge=2, le=64),
    ] = 4


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` step, by `way` and `parts`, and of `kind` speed_up, one for each of them and round."""
    from epochtop.engine.job.workload import load_workload
    from epochtop.engine.lab.experiments.parallel.ranks import crew

    device = _device(bench)
    spec = msgspec.structs.replace(
        bench.spec, device=device, threads=1, accumulate=1, shard=False, schedule="constant", warmup=0
    )
    if bench.quick:
        bench.cannot_see.append("threads and DataParallel, and more than 2 processes: there was no time for them")
    workload = load_workload(spec)
    counts = _counts(bench, device, len(workload.train))  # type: ignore[arg-type]
    starting_s = 0.0
    for number, count in enumerate(counts):
        bench.check()
        if number and bench.left_s() < starting_s:
            bench.cannot_see.append(f"{count} processes and more: starting them takes {starting_s:.0f} s a number")
            return
        bench.say(f"starting {count} processes on {device}")
        workload = load_workload(spec) if spec.task else workload  # a task's model is trained by one job only
        left_s = bench.left_s()
        with crew(_share(spec, count), workload) as ranks:
            starting_s = left_s - bench.left_s()
            cases = _cases(spec, workload, ranks, device, count)[: 2 if bench.quick else None]
            more = len(counts) - number - 1
            seconds = (bench.left_s() - more * starting_s) / (more + 1)
            for row in _with_speed_up(interleave(bench.with_time(LEAST_S), cases, seconds=max(seconds, LEAST_S))):
                yield {**row, "round": count * ROUNDS_APART + int(value_of(row, "round") or 0)}


def _device(bench: ExperimentContext) -> str:
    """GPUs if there are several, else the CPU."""
    import torch

    wanted = bench.devices[-1].partition(":")[0]
    gpus = torch.cuda.device_count() if wanted == "cuda" else 0
    if gpus > 1:
        return "cuda"
    bench.cannot_see.append(
        f"several GPUs, and DataParallel on them: there {'is one GPU' if gpus else 'is no CUDA GPU in use'} here; "
        "processes were measured on the CPU"
    )
    return "cpu"


def _counts(bench: ExperimentContext, device: str, rows: int) -> list[int]:
    import torch

    from epochtop.engine.hardware import usable_cpus

    assert isinstance(bench.fields, Fields)
    places = torch.cuda.device_count() if device == "cuda" else usable_cpus()
    if places < 2:
        bench.cannot_see.append("processes with a CPU each: there is one usable CPU, which all of them shared")
    most = max(2, min(bench.fields.most_processes, places, rows))
    return [2] if bench.quick else list(range(2, most + 1))


def _share(spec: RunSpec, count: int) -> RunSpec:
    """The spec in which `count` processes take together the rows that one takes with `spec`."""
    each = max(1, spec.batch_size // count) if spec.batch_size else 0
    return msgspec.structs.replace(spec, processes=count, batch_size=each)


def _cases(spec: RunSpec, workload: Workload, ranks: Crew, device: str, count: int) -> list[Case]:
    import torch

    from epochtop.engine.lab.instruments.jobs import job_of

    def rows_of(batch: int, many: int) -> int:
        every = len(workload.train)  # type: ignore[arg-type]
        return min(batch * many, every) if batch else every

    def labels(way: str, parts: int, rows: int) -> Row:
        return {"kind": "step", "device": device, "way": way, "parts": parts, "rows": rows, "own": int(parts == 1)}

    whole, alone = rows_of(spec.batch_size, 1), job_of(spec, device, workload)
    together = rows_of(ranks.job.spec.batch_size, count)
    cases = [
        Case(labels(PROCESSES, 1, whole), _alone(alone.device, alone.step, 1)),
        Case(labels(PROCESSES, count, together), ranks.run),
    ]
    other = job_of(spec, device, workload)
    if device == "cpu":
        return [*cases, Case(labels(THREADS, count, whole), _alone(torch.device("cpu"), other.step, count))]
    return [*cases, Case(labels(DATA_PARALLEL, count, whole), _data_parallel(other, count))]


def _alone(device: Any, step: Any, threads: int) -> Any:
    """Steps of one process with so many threads."""
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated

    timed = repeated(device, step)

    def run(times: int) -> float:
        torch.set_num_threads(threads)
        timed(SETTLING_STEPS if threads > 1 else 0)
        seconds = timed(times)
        torch.set_num_threads(1)
        return seconds

    return run


def _data_parallel(job: Any, count: int) -> Any:
    """Steps of one process that copies the model to every GPU in each of them."""
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated
    from epochtop.engine.step.step import make_step

    model = torch.nn.DataParallel(job.model, device_ids=list(range(count)))
    return repeated(job.device, make_step(replace(job.parts, model=model)))


def _with_speed_up(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, and after those of a round the speed-up of each against one process in the same round."""
    turn: list[Row] = []
    for row in rows:
        if turn and turn[0]["round"] != row["round"]:
            yield from speed_ups(turn)
            turn = []
        turn.append(row)
        yield row
    yield from speed_ups(turn)


def speed_ups(turn: Sequence[Row]) -> list[Row]:
    """Of the steps of one round, row for row of data, against those of one process."""
    ones = [row for row in per_row(turn) if row["parts"] == 1]
    found: list[Row] = []
    for row in per_row(turn) if ones else ():
        parts, times = value_of(row, "parts"), values([*ones[:1], row], "seconds")
        if parts and parts > 1 and len(times) == 2:
            ratio = times[0] / times[1]
            labels = {name: row[name] for name in ("device", "way", "parts", "round")}
            found.append({"kind": "speed_up", **labels, "speed_up": ratio, "efficiency": 100 * ratio / parts})
    return found


def per_row(rows: Sequence[Row]) -> list[Row]:
    """The same with seconds for one row of data: shares of a batch may not add up to it exactly."""
    return [
        {**row, "seconds": seconds / many}
        for row in rows
        if (seconds := value_of(row, "seconds")) is not None and (many := value_of(row, "rows"))
    ]


# --- concluding --------------------------------------------------------------------------------------------------


def conclude(found: Findings) -> Verdict:
    """Whether more processes take the same step faster, by how much, and what else does with the same processors."""
    scaling = _Scaling(found.rows, found.spec)
    if not scaling.ways:
        return too_few("one process and several in the same round")
    return Verdict(
        finding=scaling.finding(),
        evidence=tuple(scaling.evidence()),
        next_step=scaling.next_step(),
        uncertainty=scaling.uncertainty(),
        setting=scaling.setting(),
        lines=(Line(name="ideal", points=tuple((float(many), float(many)) for many in scaling.parts())),),
    )


Way = tuple[str, int]
"""What takes the steps, and in how many parts."""


class _Scaling:
    """Steps of one process against those of several."""

    def __init__(self, rows: Sequence[Row], spec: RunSpec) -> None:
        self._spec = spec
        self._steps = per_row(select(rows, kind="step"))
        self._ones = select(self._steps, parts=1)
        self.ways: dict[Way, Difference] = {}
        for row in self._steps:
            way, parts = str(row["way"]), row["parts"]
            if isinstance(parts, int) and parts > 1 and (way, parts) not in self.ways:
                gained = difference(self._ones, select(self._steps, way=way, parts=parts))
                if gained is not None:
                    self.ways[way, parts] = gained

    def parts(self) -> list[int]:
        """Numbers of processes that were measured."""
        return sorted({1, *(parts for _, parts in self.ways)})

    def _best(self, *ways: str) -> Way | None:
        """The fastest of these ways that is faster than one process, by more than noise."""
        faster = [(gained.ratio.median, way) for way, gained in self.ways.items() if way[0] in ways and _gains(gained)]
        return max(faster)[1] if faster else None

    def finding(self) -> str:
        best, threads = self._best(PROCESSES), self._best(THREADS)
        also = f"; {_who(threads)} takes it {self._words(threads)}" if threads is not None else ""
        if best is not None:
            return f"{_who(best)} take a step of the same rows {self._words(best)}{also}"
        several = [(gained.ratio.median, way) for way, gained in self.ways.items() if way[0] == PROCESSES]
        if not several:
            return f"several processes were not measured; {self._told(next(iter(self.ways)))}"
        way = max(several)[1]
        gained = self.ways[way]
        if gained.ratio.count < 3:
            return f"{_who(way)} were seen too few times to tell them from one process"
        if gained.distinct:
            return f"more processes are slower than one for this job: {_who(way)} take a step {self._words(way)}{also}"
        return f"more processes bring nothing that can be seen for this job: {_spread(gained)} with {_who(way)}{also}"

    def _words(self, way: Way) -> str:
        gained = self.ways[way]
        return f"{_spread(gained)} as fast as one, an efficiency of {gained.ratio.median / way[1]:.0%}"

    def _told(self, way: Way) -> str:
        gained = self.ways[way]
        if gained.distinct:
            return f"{_who(way)}: {self._words(way)}"
        return f"no difference between {_who(way)} and one process: " + gained.words("", "").partition(": ")[2]

    def evidence(self) -> list[str]:
        rows = value_of(self._ones[0], "rows") or 0
        one = figure(values(self._ones, "seconds"))
        lines = [f"one process takes {quantity(one.median * rows, 's')} for a step of {rows:,.0f} rows"]
        lines += [self._told(way) for way in self.ways]
        for parts in self.parts():
            for other in (THREADS, DATA_PARALLEL):
                found = self._against(parts, other)
                if found is not None:
                    lines.append(found.words(_who((PROCESSES, parts)), _who((other, parts)), "need"))
        return lines

    def _against(self, parts: int, other: str) -> Difference | None:
        mine = select(self._steps, way=PROCESSES, parts=parts)
        return difference(mine, select(self._steps, way=other, parts=parts)) if parts > 1 else None

    def setting(self) -> dict[str, str]:
        """Of the fastest way; threads instead of processes that are not clearly faster, since they need no more memory."""
        processes, threads = self._best(PROCESSES), self._best(THREADS)
        if processes is None:
            return {"threads": str(threads[1])} if threads is not None else {}
        if threads is not None:
            found = self._against(processes[1], THREADS)
            if found is None or not found.distinct or found.ratio.median > 1:
                return {"threads": str(threads[1])}
        batch = {"batch_size": str(max(1, self._spec.batch_size // processes[1]))} if self._spec.batch_size else {}
        return {"processes": str(processes[1]), **({"threads": "1"} if self._on_cpu() else {}), **batch}

    def _on_cpu(self) -> bool:
        return self._ones[0].get("device") == "cpu"

    def next_step(self) -> str:
        setting = self.setting()
        if not setting:
            return "train with one process; a larger batch or a larger model gives several more to do between two exchanges"
        told = "train with " + ", ".join(f"{name}={value}" for name, value in setting.items())
        if "processes" in setting and "batch_size" in setting:
            return f"{told}: the batch of each process, so that a step has the rows that it had"
        return told

    def uncertainty(self) -> str:
        wide = max(gained.ratio.spread for gained in self.ways.values())
        least = min(gained.ratio.count for gained in self.ways.values())
        return (
            f"{least} rounds or more; a speed-up differs by up to {wide:.2g} between its quartiles. All steps were executed "
            "operator by operator: recorded ones (executor=graph) exist for one process only and may beat several. Starting "
            "processes is not part of a step"
        )


def _gains(gained: Difference) -> bool:
    return gained.distinct and gained.ratio.median > 1


def _spread(gained: Difference) -> str:
    ratio = gained.ratio
    return f"{ratio.median:.3g} × ({ratio.low:.3g} … {ratio.high:.3g})"


def _who(way: Way) -> str:
    return WHO[way[0]].format(way[1])


EXPERIMENT = Experiment(
    name="parallel",
    title="What several processes or GPUs bring",
    measures="a training step of the same rows by 1 process and by 2 up to one a usable CPU or GPU, which exchange "
    "gradients (DistributedDataParallel); by one process with as many threads; on two GPUs and more by DataParallel",
    why="each process takes its share of the rows, and all of them wait for the exchange of gradients after every step. "
    "Where a step is short or its gradients are large, the exchange takes what sharing brought",
    reading="the line `ideal` is a speed-up of as many as there are processes. The distance to it is the exchange, and "
    "processors that they share. Efficiency is the speed-up divided by their number",
    pictures=(
        Picture(
            title="Speed-up over processes",
            kind="lines",
            x="parts",
            y="speed_up",
            series=("way",),
            unit="×",
            x_title="processes, threads or GPUs",
            y_title="speed-up",
            where={"kind": "speed_up"},
        ),
        Picture(
            title="A step of the same rows",
            kind="bars",
            y="seconds",
            series=("way", "parts"),
            unit="s",
            y_title="seconds a step",
            where={"kind": "step"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
    crew=True,
    job=RunSpec(dataset="sums", hidden=(256, 256), batch_size=2048),
)
