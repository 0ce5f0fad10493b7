"""Memory over the batch: what is there anyway, what each row adds, and the largest batch that follows from both.

A step's memory is a line over its rows: weights, gradients and optimizer do not grow with them, activations do. The
line is fitted to what torch really took, and held against a batch that was left out of the fit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.instruments.sampling import threads_kept
from epochtop.engine.lab.statistics import Fit, figure, fit, quantity, select, values
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.spec import Invalid, RunSpec

if TYPE_CHECKING:
    import torch

    from epochtop.engine.job.job import Job
    from epochtop.engine.job.workload import Workload

SIZES = 7
"""Batches that the line is fitted to, each half of the one after; the largest is half of all rows."""
QUICK_SIZES = 5
LEAST = 2
"""Rows of the smallest batch: batch norm has no spread to divide by in one of a single row."""
ROUNDS = 3
SHARE = 0.8
"""Of the free memory that a batch may take."""
FLAT = 1.05
"""Times the least peak up to which batches count as too small to be told from it."""
CLOSE = 0.05
"""Share by which the checked batch may differ from the line."""


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` job, peak (a batch), check (left out of the fit), left_out (why one was not tried) and held."""
    import torch

    from epochtop.engine.lab.instruments.allocation import peak_is_seen

    seen = [device for device in map(torch.device, bench.devices) if peak_is_seen(bench, device)]
    if not seen:
        raise Invalid("device", f"{bench.cannot_see[-1]}; use cpu")
    for device in seen:
        yield from _on(bench, device)


def _on(bench: ExperimentContext, device: torch.device) -> Iterator[Row]:
    from epochtop.engine.device.select import free_bytes
    from epochtop.engine.lab.instruments.jobs import job_of

    name = str(device)
    bench.say(f"building the job on {name}")
    first = job_of(bench.spec, name, batch_size=LEAST, accumulate=1)
    workload, rows = first.workload, first.plan.rows
    first.step()
    del first
    free = free_bytes(device, exact=True)
    yield {"kind": "job", "device": name, "rows": rows, "free_bytes": free}
    trial = _Trial(bench, device, workload)
    for size in sorted(
        {max(LEAST, rows >> halved) for halved in range(1, (QUICK_SIZES if bench.quick else SIZES) + 1)}
    ):
        yield from trial.of("peak", size)
    check = _to_check(trial.rows, rows, free)
    if check is not None:
        yield from trial.of("check", check)
    for turn in range(1, 1 if bench.quick else ROUNDS):
        for row in list(trial.rows):
            if row["round"] == 0 and bench.left_s() > 0:
                yield from trial.of(str(row["kind"]), int(row["batch"] or 0), turn)
    largest = max((int(row["batch"] or 0) for row in trial.rows), default=LEAST)
    yield from _held(bench, device, workload, largest)


def _to_check(measured: Sequence[Row], rows: int, free: int | None) -> int | None:
    """The largest batch that the line says to fit, but not all rows: these are taken as they lie, without a copy."""
    fitted, most = line(measured), rows - rows // 8
    if fitted is None:
        return None
    fits = largest_batch(fitted, free)
    size = most if fits is None else min(most, fits)
    return size if size >= LEAST and size not in {row["batch"] for row in measured} else None


class _Trial:
    """Batches that are tried, one after the other, while they fit into memory and time."""

    def __init__(self, bench: ExperimentContext, device: torch.device, workload: Workload) -> None:
        self._bench, self._device, self._stuff = bench, device, workload
        self._took: list[tuple[int, float]] = []
        self.rows: list[Row] = []

    def of(self, kind: str, size: int, turn: int = 0) -> Iterator[Row]:
        """A row of the peak, or one that says why it was not measured."""
        from epochtop.engine.device.oom import is_out_of_memory

        self._bench.check()
        labels: Row = {"device": str(self._device), "batch": size, "round": turn}
        if len(self.rows) > 1 and self._expected_s(size) > self._bench.left_s():
            yield {**labels, "kind": "left_out", "why": "it would have taken more than the time that was left"}
            return
        begun = time.perf_counter()
        try:
            taken = _peak(self._bench, self._device, self._stuff, size)
        except (Invalid, RuntimeError, MemoryError) as error:
            if not (isinstance(error, Invalid) or is_out_of_memory(error)):
                raise
            yield {**labels, "kind": "left_out", "why": (str(error) or "out of memory").splitlines()[0]}
            return
        self._took.append((size, time.perf_counter() - begun))
        self.rows.append({**labels, "kind": kind, "peak_bytes": taken})
        yield self.rows[-1]

    def _expected_s(self, size: int) -> float:
        """From the batches so far: building a job takes as long for all of them, steps do not."""
        fitted = fit([(1, rows) for rows, _ in self._took], [took for _, took in self._took])
        return fitted.coefficients[0] + size * fitted.coefficients[1] if fitted is not None else self._took[-1][1]


def _peak(bench: ExperimentContext, device: torch.device, workload: Workload, size: int) -> int:
    """Bytes at the peak of building a job with batches of `size` and taking two steps."""
    from epochtop.engine.lab.instruments.allocation import peak_bytes

    def steps() -> object:
        job = _job(bench, device, workload, size)
        job.step()
        return job, job.step()

    return peak_bytes(device, steps)


def _job(bench: ExperimentContext, device: torch.device, workload: Workload, size: int) -> Job:
    from epochtop.engine.lab.instruments.jobs import job_of

    return job_of(bench.spec, str(device), workload, batch_size=size, accumulate=1, threads=bench.spec.threads or 1)


def _held(bench: ExperimentContext, device: torch.device, workload: Workload, size: int) -> Iterator[Row]:
    """What is held before a job, with it, after `del`, and after memory was given back."""
    from epochtop.engine.device.footprint import resident_bytes
    from epochtop.engine.device.peak import release

    def look(when: str) -> Row:
        row: Row = {"kind": "held", "device": str(device), "when": when}
        if device.type != "cuda":
            return {**row, "what": "resident", "bytes": resident_bytes()}
        import torch

        return {**row, "what": "allocated", "bytes": torch.cuda.memory_allocated(device)}

    def looks(when: str) -> Iterator[Row]:
        yield look(when)
        if device.type == "cuda":
            import torch

            reserved = torch.cuda.memory_reserved(device)
            yield {"kind": "held", "device": str(device), "when": when, "what": "reserved", "bytes": reserved}

    bench.check()
    release(device)
    yield from looks("before")
    job = _job(bench, device, workload, size)
    loss = job.step()
    yield from looks("after a step")
    del job, loss
    import gc

    gc.collect()
    yield from looks("after del")
    release(device)
    yield from looks("after emptying")


# --- concluding --------------------------------------------------------------------------------------------------


def line(rows: Sequence[Row]) -> Fit | None:
    """`bytes = fixed + batch × row` through the medians of the batches that were not kept for the check.

    The peak of small batches is not in the activations but in the update, and the same for all of them: these are left
    out, as long as two batches remain.
    """
    medians = _medians(rows, "peak")
    least = min((taken for _, taken in medians), default=0.0)
    rising = [(size, taken) for size, taken in medians if taken > FLAT * least]
    used = rising if len(rising) > 1 else medians
    return fit([(1, size) for size, _ in used], [taken for _, taken in used]) if len(used) > 1 else None


def largest_batch(fitted: Fit, free_bytes: float | None) -> int | None:
    """Rows of the largest batch that the line says to fit; None where free memory or the slope is unknown."""
    fixed, row = fitted.coefficients
    return None if free_bytes is None or row <= 0 else max(0, int((SHARE * free_bytes - fixed) // row))


def _medians(rows: Sequence[Row], kind: str) -> list[tuple[float, float]]:
    found: dict[float, list[float]] = {}
    for row in select(rows, kind=kind):
        size, taken = values([row], "batch"), values([row], "peak_bytes")
        if size and taken:
            found.setdefault(size[0], []).append(taken[0])
    return [(size, figure(taken).median) for size, taken in sorted(found.items())]


def conclude(found: Findings) -> Verdict:
    """The fitted line of the device that the job would be trained on, and the largest batch that fits."""
    told = [each for device in found.devices if (each := _Told.of(found.rows, device)) is not None]
    if not told:
        return too_few("the memory of two batches or more")
    main = told[-1]
    return Verdict(
        finding=main.finding(),
        evidence=tuple(said for each in told for said in each.evidence()),
        next_step=main.next_step(),
        uncertainty=main.uncertainty(),
        lines=tuple(each.drawn() for each in told),
    )


class _Told:
    """One device, in sentences."""

    def __init__(self, rows: Sequence[Row], device: str, fitted: Fit) -> None:
        self._rows, self._device, self._fit = rows, device, fitted
        self._fixed, self._row = fitted.coefficients
        self._peaks, self._checks = _medians(rows, "peak"), _medians(rows, "check")
        job = select(rows, kind="job")
        self._free = next(iter(values(job, "free_bytes")), None)
        self._most = next(iter(values(job, "rows")), 0.0)

    @classmethod
    def of(cls, rows: Sequence[Row], device: str) -> _Told | None:
        mine = select(rows, device=device)
        fitted = line(mine)
        return cls(mine, device, fitted) if fitted is not None else None

    @property
    def largest(self) -> int | None:
        """Rows of the largest batch that the line says to fit."""
        return largest_batch(self._fit, self._free)

    @property
    def _tried(self) -> float:
        """Rows of the largest batch that a real step was taken with."""
        return max((size for size, _ in (*self._peaks, *self._checks)), default=0.0)

    @property
    def off(self) -> float | None:
        """By how much the checked batch differs from the line, as a share."""
        if not self._checks:
            return None
        size, taken = self._checks[-1]
        return taken / (self._fixed + size * self._row) - 1

    def finding(self) -> str:
        told = (
            f"on {self._device} a step needs {quantity(self._fixed, 'B')} and {quantity(self._row, 'B')} for each row"
        )
        if self.largest is None:
            return f"{told}; how much of it fits is not known"
        if self.largest >= self._most:
            return f"{told}: all {self._most:,.0f} training rows fit in one batch, and {self.largest:,} would"
        if self._tried < 0.9 * self.largest:
            return (
                f"{told}: by the line, {self.largest:,} rows would be the largest batch that fits; no step has tried it"
            )
        return f"{told}: {self.largest:,} rows are the largest batch that fits"

    def evidence(self) -> list[str]:
        where = self._device
        lines = [
            f"{where}: the line misses none of its {len(self._fit.residuals)} batches by more than {self._fit.worst:.1%}",
            f"{where}: {self._checked()}",
        ]
        if self._free is not None:
            lines.append(f"{where}: {quantity(self._free, 'B')} were free, of which a batch may take {SHARE:.0%}")
        held = [
            f"{row.get('when')} {quantity(values([row], 'bytes')[0], 'B')} {row.get('what')}"
            for row in select(self._rows, kind="held")
            if values([row], "bytes")
        ]
        lines += [
            f"{where}: {row.get('batch')} rows were not tried: {row.get('why')}"
            for row in select(self._rows, kind="left_out")
        ]
        return lines + ([f"{where}: {', '.join(held)}"] if held else [])

    def _checked(self) -> str:
        if self.off is None:
            return "the line was not checked with a batch that it had not seen"
        size, taken = self._checks[-1]
        well = "as the line says" if abs(self.off) <= CLOSE else f"{self.off:+.0%} of what the line says"
        return f"a real step with {size:,.0f} rows, which the line had not seen, took {quantity(taken, 'B')}: {well}"

    def next_step(self) -> str:
        if self.largest is not None and self.largest < self._most:
            return f"set batch_size to at most {self.largest:,}; precision=bf16, checkpoint_activations or accumulate stretch it"
        return "choose the batch by what trains best: memory does not limit it here"

    def uncertainty(self) -> str:
        if self.off is None:
            return "no real step has checked the line: `epochtop find-batch` tries the largest batch in full steps"
        if self.off is not None and abs(self.off) > CLOSE:
            return "the checked batch is off the line, so that the largest batch is a guess: `epochtop find-batch` tries it"
        if self.largest is not None and self._checks and self.largest > self._checks[-1][0]:
            return (
                "batches beyond the training rows were not tried; others may take the memory that was free, and the "
                "process itself and copies for checkpoints come on top"
            )
        return "others may take the memory that was free; `epochtop find-batch` tries the largest batch in full steps"

    def drawn(self) -> Line:
        sizes = [size for size, _ in (*self._peaks, *self._checks)]
        return Line(
            name=f"{self._device}, fitted", points=tuple((size, self._fixed + size * self._row) for size in sizes)
        )


EXPERIMENT = Experiment(
    name="memory",
    title="Memory over the batch size",
    measures="what torch takes at the peak of a step for batches of ever more rows, as far as they fit; what is held "
    "before, with and after a job, and after memory was given back",
    why="memory bounds the batch, and a line tells the largest one without trying: what is there anyway, and what each row "
    "adds",
    reading="the line meets the left edge at what weights, gradients and optimizer take; its slope is what one row adds in "
    "activations. The last point was left out of the fit to check it",
    pictures=(
        Picture(
            title="Peak memory over the batch",
            kind="lines",
            x="batch",
            y="peak_bytes",
            series=("device", "kind"),
            unit="B",
            x_title="rows in a batch",
            y_title="bytes",
        ),
        Picture(
            title="Memory held",
            kind="bars",
            y="bytes",
            series=("device", "what", "when"),
            unit="B",
            where={"kind": "held"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    job=RunSpec(dataset="digits", hidden=(512, 256), batch_size=64, optimizer="adam", learning_rate=0.001, epochs=40),
)
