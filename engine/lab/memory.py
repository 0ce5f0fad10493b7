"""Memory over the batch: what is there anyway, what each row adds, and the largest batch that follows from both.

A step's memory is a line over its rows: weights, gradients and optimizer do not grow with them, activations do. The
line is fitted to what torch really took, and held against a batch that was left out of the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.experiment import Line, Verdict
from engine.lab.contract import Bench, Experiment, Findings, Picture, Row, too_few
from engine.lab.figures import Fit, figure, fit, quantity, select, values
from engine.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from engine.job import Job
    from engine.material import Material

SIZES = 7
"""Batches that are tried, each half of the one before."""
ROUNDS = 3
SHARE = 0.8
"""Of the free memory that a batch may take."""
FLAT = 1.05
"""Times the least peak up to which batches count as too small to be told from it."""
CLOSE = 0.05
"""Share by which the checked batch may differ from the line."""


# --- measuring ---------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> Iterator[Row]:
    """Rows of `kind` job, peak (a batch), check (the largest one, left out of the fit) and held (what comes back)."""
    import torch

    threads = torch.get_num_threads()
    try:
        for device in bench.devices:
            yield from _on(bench, device)
    finally:
        torch.set_num_threads(threads)


def _on(bench: Bench, name: str) -> Iterator[Row]:
    import torch

    from engine.device import free_bytes
    from engine.lab.jobs import job_of

    device = torch.device(name)
    bench.say(f"building the job on {name}")
    first = job_of(bench.spec, name, batch_size=1, accumulate=1)
    stuff, rows = first.material, first.plan.rows
    first.step()
    del first
    free = free_bytes(device, exact=True)
    yield {"kind": "job", "device": name, "rows": rows, "free_bytes": free}
    sizes = sorted({max(1, rows >> halved) for halved in range(SIZES + 1)})
    for turn in range(1 if bench.quick else ROUNDS):
        for size in sizes:
            bench.check()
            if turn and bench.left_s() <= 0:
                break
            kind = "check" if size == rows else "peak"
            yield {
                "kind": kind,
                "device": name,
                "batch": size,
                "round": turn,
                "peak_bytes": _peak(bench, device, stuff, size),
            }
    yield from _held(bench, device, stuff, rows)


def _peak(bench: Bench, device: torch.device, stuff: Material, size: int) -> int:
    """Bytes at the peak of building a job with batches of `size` and taking two steps."""
    from engine.lab.allocation import peak_bytes

    def steps() -> object:
        job = _job(bench, device, stuff, size)
        job.step()
        return job, job.step()

    return peak_bytes(device, steps)


def _job(bench: Bench, device: torch.device, stuff: Material, size: int) -> Job:
    from engine.lab.jobs import job_of

    return job_of(bench.spec, str(device), stuff, batch_size=size, accumulate=1, threads=bench.spec.threads or 1)


def _held(bench: Bench, device: torch.device, stuff: Material, size: int) -> Iterator[Row]:
    """What is held before a job, with it, after `del`, and after memory was given back."""
    from engine.footprint import resident_bytes
    from engine.peak import release

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
    job = _job(bench, device, stuff, size)
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
        """Rows of the largest batch that the line says to fit; None where free memory or the slope is unknown."""
        if self._free is None or self._row <= 0:
            return None
        return max(0, int((SHARE * self._free - self._fixed) // self._row))

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
        return lines + ([f"{where}: {', '.join(held)}"] if held else [])

    def _checked(self) -> str:
        if self.off is None:
            return "no batch was kept to check the line with"
        size, taken = self._checks[-1]
        well = "as the line says" if abs(self.off) <= CLOSE else f"{self.off:+.0%} of what the line says"
        return f"a real step with {size:,.0f} rows, which the line had not seen, took {quantity(taken, 'B')}: {well}"

    def next_step(self) -> str:
        if self.largest is not None and self.largest < self._most:
            return f"set batch_size to at most {self.largest:,}; precision=bf16, checkpoint_activations or accumulate stretch it"
        return "choose the batch by what trains best: memory does not limit it here"

    def uncertainty(self) -> str:
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
    measures="what torch takes at the peak of a step for batches of ever more rows, up to all of them; what is held before, "
    "with and after a job, and after memory was given back",
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
