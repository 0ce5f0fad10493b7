"""The verdict of `memory`: the fitted line of memory over the batch size, and the largest batch that fits.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.experiment import DeviceAnswer, Findings, verdict_of
from epochtop.engine.lab.experiments.memory.schema import Check, Held, JobFacts, LeftOut, Peak
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Fit, figure, fit, select
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.quantities import format_quantity

MEMORY_SHARE = 0.8
"""Fraction of the free memory that a batch may use."""
FLAT = 1.05
"""Factor of the smallest peak up to which batches are too small for the fit."""
CLOSE = 0.05
"""Fraction by which the checked batch may differ from the line."""


def line(rows: Sequence[Measurement]) -> Fit | None:
    """`bytes = fixed + batch × row` through the medians of the kind `peak`.

    The peak of small batches is in the update, not in the activations, and the same for all of them. They are left out
    as long as two batches remain.
    """
    medians = _medians(of_kind(rows, Peak))
    least = min((peak for _, peak in medians), default=0.0)
    rising = [(size, peak) for size, peak in medians if peak > FLAT * least]
    used = rising if len(rising) > 1 else medians
    return fit([(1, size) for size, _ in used], [peak for _, peak in used]) if len(used) > 1 else None


def largest_batch(fitted: Fit, free_bytes: float | None) -> int | None:
    """Rows of the largest batch that fits according to the line; None if free memory or the slope is unknown."""
    fixed, row = fitted.coefficients
    return None if free_bytes is None or row <= 0 else max(0, int((MEMORY_SHARE * free_bytes - fixed) // row))


def _medians(rows: Sequence[Peak] | Sequence[Check]) -> list[tuple[float, float]]:
    peaks: dict[float, list[float]] = {}
    for row in rows:
        peaks.setdefault(row.batch, []).append(row.peak_bytes)
    return [(size, figure(bytes_).median) for size, bytes_ in sorted(peaks.items())]


def conclude(findings: Findings) -> Verdict:
    """The line of the device that the job would be trained on, and the largest batch that fits."""
    answers = [_DeviceMemory.of(findings.rows, device) for device in findings.devices]
    return verdict_of(answers, "the memory of two batch sizes or more")


class _DeviceMemory(DeviceAnswer):
    """The memory of one device, in sentences."""

    def __init__(self, rows: Sequence[Measurement], device: str, fitted: Fit) -> None:
        self._device, self._fit = device, fitted
        self._fixed, self._row = fitted.coefficients
        self._peaks, self._checks = _medians(of_kind(rows, Peak)), _medians(of_kind(rows, Check))
        self._held, self._left_out = of_kind(rows, Held), of_kind(rows, LeftOut)
        job = next(iter(of_kind(rows, JobFacts)), None)
        self._free_bytes = job.free_bytes if job is not None else None
        self._training_rows = job.rows if job is not None else 0

    @classmethod
    def of(cls, rows: Sequence[Measurement], device: str) -> _DeviceMemory | None:
        here = select(rows, device=device)
        fitted = line(here)
        return cls(here, device, fitted) if fitted is not None else None

    @property
    def _largest(self) -> int | None:
        """Rows of the largest batch that fits according to the line."""
        return largest_batch(self._fit, self._free_bytes)

    @property
    def _largest_tried(self) -> float:
        """Rows of the largest batch that ran a real step."""
        return max((size for size, _ in (*self._peaks, *self._checks)), default=0.0)

    @property
    def _deviation(self) -> float | None:
        """The relative difference of the checked batch from the line."""
        if not self._checks:
            return None
        size, peak = self._checks[-1]
        return peak / (self._fixed + size * self._row) - 1

    def finding(self) -> str:
        needs = f"on {self._device} a step needs {format_quantity(self._fixed, 'B')} plus {format_quantity(self._row, 'B')} per row"
        if self._largest is None:
            return f"{needs}; the largest batch is unknown"
        if self._largest >= self._training_rows:
            return f"{needs}: all {self._training_rows:,} training rows fit in one batch, and {self._largest:,} would"
        if self._largest_tried < 0.9 * self._largest:
            return f"{needs}: by the line, {self._largest:,} rows are the largest batch that fits; no step has tried it"
        return f"{needs}: {self._largest:,} rows are the largest batch that fits"

    def evidence(self) -> list[str]:
        lines = [
            f"the line is within {self._fit.worst:.1%} of each of its {len(self._fit.residuals)} batches",
            self._check_words(),
        ]
        if self._free_bytes is not None:
            lines.append(
                f"{format_quantity(self._free_bytes, 'B')} were free; a batch may use {MEMORY_SHARE:.0%} of that"
            )
        lines += [f"{row.batch} rows were not tried: {row.why}" for row in self._left_out]
        held = [
            f"{row.when} {format_quantity(row.bytes, 'B')} {row.what}" for row in self._held if row.bytes is not None
        ]
        lines += [f"memory held: {', '.join(held)}"] if held else []
        return [f"{self._device}: {line}" for line in lines]

    def _check_words(self) -> str:
        if self._deviation is None:
            return "the line was not checked with a further batch"
        size, peak = self._checks[-1]
        agreement = "as predicted" if abs(self._deviation) <= CLOSE else f"{self._deviation:+.0%} of the prediction"
        return f"a real step with {size:,.0f} rows, not in the fit, took {format_quantity(peak, 'B')}: {agreement}"

    def next_step(self) -> str:
        if self._largest is not None and self._largest < self._training_rows:
            return f"set batch_size to at most {self._largest:,}; precision=bf16, checkpoint_activations or accumulate allow more"
        return "choose the batch size that trains best: memory does not limit it here"

    def uncertainty(self) -> str:
        if self._deviation is None:
            return "no real step has checked the line: `epochtop find-batch` tries the largest batch in full steps"
        if abs(self._deviation) > CLOSE:
            return "the checked batch is off the line, so the largest batch is a guess: `epochtop find-batch` tries it"
        if self._largest is not None and self._checks and self._largest > self._checks[-1][0]:
            return (
                "batches larger than the training rows were not tried; other programs may use the free memory, and the "
                "process and copies for checkpoints need some too"
            )
        return "other programs may use the free memory; `epochtop find-batch` tries the largest batch in full steps"

    def lines(self) -> list[Line]:
        """The fitted line."""
        sizes = [size for size, _ in (*self._peaks, *self._checks)]
        points = tuple((size, self._fixed + size * self._row) for size in sizes)
        return [Line(name=f"{self._device}, fitted", points=points)]
