"""The verdict of `loader`: the source that feeds a step fastest, and whether the difference exceeds the noise.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from epochtop.engine.lab.differences import FEWEST, Difference, difference, gap, stated
from epochtop.engine.lab.experiment import DeviceAnswer, Findings, verdict_of
from epochtop.engine.lab.experiments.loader.schema import SAME, BatchTime, JobFacts, StartTime, StepTime
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, by_column, figure, quartiles_apart, select, values, with_spread
from epochtop.engine.protocol.experiments import Estimate, Verdict
from epochtop.engine.protocol.quantities import format_quantity

PLACEMENTS = {"resident": "device", "streamed": "stream"}
"""The value of the field `placement` for each of the engine's sources."""


def conclude(findings: Findings) -> Verdict:
    """The fastest source on the device that trains, and whether it is faster than the source in use."""
    answers = [_Feeding.of(findings.rows, device) for device in findings.devices]
    return verdict_of(answers, "steps with two or more sources of rows")


class _Feeding(DeviceAnswer):
    """The steps of one device by source. The start of workers is spread over an epoch."""

    def __init__(self, rows: Sequence[Measurement], device: str, job: JobFacts) -> None:
        self._device, self._job = device, job
        self._starts = by_column(of_kind(rows, StartTime), "way")
        self._batches = by_column(of_kind(rows, BatchTime), "way")
        steps = by_column(of_kind(rows, StepTime), "way")
        self._same = steps.pop(SAME, [])
        self._steps = {name: self._with_start(name, of_source) for name, of_source in steps.items()}
        self._times = {name: _time(of_source) for name, of_source in self._steps.items()}
        self._best = min(self._times, key=lambda name: self._times[name].median)
        self._now = job.way if job.way in self._steps else self._best

    @classmethod
    def of(cls, rows: Sequence[Measurement], device: str) -> _Feeding | None:
        here = select(rows, device=device)
        jobs = of_kind(here, JobFacts)
        names = {row.way for row in of_kind(here, StepTime)} - {SAME}
        return cls(here, device, jobs[0]) if jobs and len(names) > 1 else None

    def _with_start(self, name: str, steps: Sequence[StepTime]) -> list[StepTime]:
        start = self._start(name)
        if start is None or not self._job.batches:
            return list(steps)
        share_s = start.median / self._job.batches
        return [msgspec.structs.replace(step, seconds=step.seconds + share_s) for step in steps]

    def _start(self, name: str) -> Figure | None:
        """Seconds to start and stop the workers of a source."""
        starts = self._starts.get(name, [])
        return _time(starts) if starts else None

    def _compared(self, first: str, second: str) -> Difference | None:
        """Steps with one source over steps with another."""
        return difference(self._steps[first], self._steps[second])

    def _gain(self, name: str) -> Difference | None:
        """Steps with the source in use over steps with this one; None if the source in use is not slower."""
        sides = self._compared(self._now, name)
        return sides if sides is not None and sides.slower else None

    def _against_same(self) -> Difference | None:
        """Steps with the source in use over steps that do not wait for rows."""
        return difference(self._steps[self._now], self._same)

    @property
    def _waits(self) -> bool:
        """Whether steps that do not wait for rows are faster."""
        sides = self._against_same()
        return sides is not None and sides.slower

    @property
    def _timed_wait(self) -> Figure | None:
        """Seconds from asking for a batch to having it, more than with a batch that is always there; None if not timed.

        The time for that batch is the clock's own. Between steps, that is known no better than the whole of it: the code of
        the clock may have left the processor's caches.
        """
        wait, clock = gap(self._steps[self._now], self._same, "wait_s"), values(self._same, "wait_s")
        if wait is None:
            return None
        clock_s = figure(clock).median
        return Figure(wait.median, wait.low - clock_s, wait.high + clock_s, wait.count)

    def _wait(self) -> Figure | None:
        """Seconds for which a step with the source in use waits for its rows.

        Where they were not timed, the seconds by which it is longer than a step that does not wait. That is more than the
        wait: rows that have just come are not in the processor's caches, and after a long wait neither is the step.
        """
        return self._timed_wait or gap(self._steps[self._now], self._same)

    def _wait_words(self) -> str:
        wait = self._wait()
        if wait is None:
            return ""
        if self._waits or self._timed_wait is not None:
            return f", of which {with_spread(wait)} are waiting for rows"
        if wait.count < FEWEST or wait.high >= self._times[self._now].median:
            return f"; how much of that is waiting for rows cannot be determined from {wait.count} rounds"
        return f", of which less than {format_quantity(max(wait.high, 0.0), 's')} are waiting for rows"

    def finding(self) -> str:
        now_s, best_s = (format_quantity(self._times[name].median, "s") for name in (self._now, self._best))
        gain = self._gain(self._best)
        if gain is not None:
            return (
                f"on {self._device} {_source(self._best)} feeds a step fastest: {best_s}; the source in use, "
                f"{_source(self._now)}, takes {gain.amount()}"
            )
        return (
            f"on {self._device} no source is faster than the one in use, {_source(self._now)}: {now_s} per step"
            f"{self._wait_words()}"
        )

    def estimates(self) -> list[Estimate]:
        """The wait for rows in a step with the source in use."""
        wait = self._wait()
        return list(stated("wait for rows", "s", wait)) if wait is not None else []

    def evidence(self) -> list[str]:
        lines = [f"a step takes {_listed(self._times)}"]
        if self._batches:
            lines.append(f"a batch alone takes {_listed({name: _time(rows) for name, rows in self._batches.items()})}")
        same = self._against_same()
        if same is not None:
            lines.append(same.words(f"a step {_with(self._now)}", "one that does not wait for rows"))
        lines += [line for name in self._times if (line := self._against_now(name))]
        starts = {name: start for name in self._starts if (start := self._start(name)) is not None}
        if starts:
            lines.append(
                f"starting and stopping workers takes {_listed(starts)}, once per epoch; the step times above include it, "
                f"spread over the {self._job.batches:,} batches of an epoch"
            )
        return [f"{self._device}: {line}" for line in lines]

    def _against_now(self, name: str) -> str:
        sides = self._compared(name, self._now) if name != self._now else None
        return sides.words(f"a step {_with(name)}", f"one {_with(self._now)}") if sides is not None else ""

    def _settings(self) -> dict[str, dict[str, str]]:
        """The setting of each source that a field of a run can choose."""
        if self._job.sets == "placement":
            return {name: {"placement": PLACEMENTS[name]} for name in PLACEMENTS if name in self._steps}
        pinned = int(self._device.startswith("cuda"))
        rows = {name: steps[0] for name, steps in self._steps.items() if steps[0].pinned == pinned}
        return {name: {"workers": str(row.workers)} for name, row in rows.items()}

    def setting(self) -> dict[str, str]:
        """The setting of the fastest source that a run can use, if it is faster than the source in use."""
        settings = self._settings()
        best = min(settings, key=lambda name: self._times[name].median, default=self._now)
        return settings[best] if best != self._now and self._gain(best) is not None else {}

    def next_step(self) -> str:
        setting = self.setting()
        anatomy = "`epochtop lab anatomy` splits the step itself into parts"
        if setting:
            return "train with " + ", ".join(f"{name}={value}" for name, value in setting.items())
        if self._now == "resident":
            return f"change nothing: rows are already on the device; {anatomy}"
        if self._waits:
            return "reduce the work per row, or give the task its rows as tensors: no setting helps here"
        return f"keep the loader; {anatomy}"

    def uncertainty(self) -> str:
        rounds = min(time.count for time in self._times.values())
        return (
            f"{quartiles_apart('times of one source', self._times.values())}, in {rounds} rounds; workers need CPUs, so more "
            "of them help less on a busy machine. Rows were in memory when they were read again"
        )


def _time(rows: Sequence[StepTime] | Sequence[BatchTime] | Sequence[StartTime]) -> Figure:
    return figure(values(rows, "seconds"))


def _source(name: str) -> str:
    return f"{name} rows" if name in PLACEMENTS else f"a DataLoader with {name}"


def _with(name: str) -> str:
    return f"with {name} rows" if name in PLACEMENTS else f"with {name}"


def _listed(figures: Mapping[str, Figure]) -> str:
    return ", ".join(f"{with_spread(time)} {_with(name)}" for name, time in figures.items())
