"""The verdict of `anatomy`: the part that bounds a step, the most that each part could gain, and what would change it.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.differences import difference
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.anatomy.remedies import Remedy, remedy
from epochtop.engine.lab.experiments.anatomy.schema import (
    ON_DEVICE,
    PARTS,
    IdleTime,
    Kernels,
    LaunchTime,
    LineRead,
    Operators,
    PartTime,
    StepTime,
)
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, figure, grouped, select, values, with_spread
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.quantities import format_quantity

TOLERANCE = 0.05
"""Fraction of the step by which the sum of the parts may miss it."""
EXPLAINED = 0.75
"""Fraction of the step that must be explained for a verdict."""
CLEARLY_SMALLER = 0.5
"""Ratio that counts as a difference if there are too few rounds for a spread."""
WORTH_REPORTING = 0.02
"""Fraction of the step from which the possible gain of a part is reported."""
LEAST_REPORTED = 0.005
"""Fraction of the step below which a part rounds to nothing."""
MOST = 20.0
"""Larger gains are reported as more than this."""


def conclude(findings: Findings) -> Verdict:
    """What bounds the step on the device that a run would use, which is the last one."""
    anatomies = [one for device in findings.devices if (one := Anatomy.of(findings.rows, device)) is not None]
    if not anatomies:
        return too_few("a whole step and its parts")
    main = anatomies[-1]
    cure = _faster_device(anatomies) or remedy(main.bound, main.rows, findings.spec)
    return Verdict(
        finding=main.finding(),
        evidence=tuple(line for one in anatomies for line in one.evidence(cure if one is main else None)),
        next_step=cure.words,
        uncertainty=main.uncertainty(findings.spec.executor),
        setting=cure.setting,
    )


@dataclass(frozen=True)
class Anatomy:
    """The parts of a step on one device."""

    device: str
    rows: Sequence[Measurement]
    """The rows of this device."""
    step: Figure
    figures: dict[str, Figure]
    """Seconds of each part, as measured."""
    rest: float
    """Seconds by which the step exceeds the sum of its parts; negative if the parts are longer."""

    @classmethod
    def of(cls, rows: Sequence[Measurement], device: str) -> Anatomy | None:
        """The anatomy on a device; None if the step or all parts are missing."""
        here = [row for row in rows if getattr(row, "device", None) == device]
        steps = values(of_kind(here, StepTime), "seconds")
        parts = grouped(of_kind(here, PartTime), ("part",), "seconds")
        figures = {part: parts[(part,)] for part in PARTS if (part,) in parts}
        rest = _rest(here)
        if not steps or not figures or rest is None:
            return None
        # a part is not below zero: what was subtracted too much is not explained either
        rest += sum(min(0.0, part.median) for part in figures.values())
        return cls(device, here, figure(steps), figures, rest)

    def seconds(self, part: str) -> float:
        """Median of a part; not below 0."""
        return max(0.0, self.figures[part].median) if part in self.figures else 0.0

    def share(self, part: str) -> float:
        """Fraction of the step."""
        return self.seconds(part) / self.step.median

    @property
    def bound(self) -> str:
        """The largest part; empty if too much is unexplained."""
        largest = max(self.figures, key=self.seconds)
        return largest if abs(self.rest) <= (1 - EXPLAINED) * self.step.median else ""

    @property
    def rival(self) -> str:
        """The second part, if it is not clearly smaller than the largest, unexplained time included."""
        others = [part for part in self.figures if part != self.bound and self.seconds(part) > 0]
        if not self.bound or not others:
            return ""
        second = max(others, key=self.seconds)
        parts = of_kind(self.rows, PartTime)
        # the smaller over the larger: the other way round, a part near 0 makes ratios of any size
        sides = difference(select(parts, part=second), select(parts, part=self.bound))
        if sides is None or self.share(second) < TOLERANCE:
            return ""
        few = sides.direction == "few"
        clear = sides.ratio.median < CLEARLY_SMALLER if few else sides.faster
        sure = self.seconds(self.bound) - self.seconds(second) > abs(self.rest)
        return "" if clear and sure else second

    def ceiling(self, *parts: str) -> float:
        """The most times faster that steps can become without these parts."""
        left_s = self.step.median - sum(map(self.seconds, parts))
        return self.step.median / left_s if left_s * MOST > self.step.median else MOST

    def finding(self) -> str:
        """The answer."""
        step = format_quantity(self.step.median, "s")
        if not self.bound:
            return f"on {self.device} the measured parts do not explain the step of {step}: {format_quantity(self.rest, 's')} is unexplained"
        name, words = PARTS[self.bound]
        if self.rival:
            name = f"{name.removesuffix('bound')} and {PARTS[self.rival][0]} alike"
        return f"on {self.device} this job is {name}: {words} takes {self._amount(self.bound)} of the {step} per step"

    def _amount(self, part: str) -> str:
        share = "longer than the step" if self.share(part) > 1 + TOLERANCE else f"{min(1.0, self.share(part)):.0%}"
        return f"{format_quantity(self.seconds(part), 's')} ({share})"

    # --- evidence ------------------------------------------------------------------------------------------------

    def evidence(self, cure: Remedy | None) -> list[str]:
        """Sentences with figures. `cure` is the remedy, if this is the device that it is for."""
        lines = (
            self._sum(),
            *self._idle(),
            *self._counts(),
            self._ceilings(),
            *self._gain_of(cure),
            *self._reading_lines(),
        )
        return [f"{self.device}: {line}" for line in lines]

    def _sum(self) -> str:
        order = sorted(self.figures, key=self.seconds, reverse=True)
        parts = ", ".join(f"{part} {self._amount(part)}" for part in order)
        share = abs(self.rest) / self.step.median
        adds = (
            "the parts add up to the step within 5 %" if share <= TOLERANCE else "the parts do not add up to the step"
        )
        unexplained = f"unexplained {format_quantity(self.rest, 's')} ({share:.1%})"
        return f"a step takes {with_spread(self.step)}: {parts}; {unexplained}: {adds}"

    def _idle(self) -> list[str]:
        """How long the device has nothing to do, and what the host does then."""
        idle = difference(of_kind(self.rows, IdleTime), of_kind(self.rows, StepTime))
        if idle is None:
            return ["the CPU is the device itself, so it has no idle time of its own"] if self.device == "cpu" else []
        host = {part: self.share(part) for part in self.figures if part not in ON_DEVICE}
        order = sorted(host, key=host.__getitem__, reverse=True)
        shares = {part: host[part] for part in order} | {"unexplained": self.rest / self.step.median}
        during = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if abs(share) >= LEAST_REPORTED)
        words = f"the device is idle {_percentages(idle.ratio)} of the step"
        return [f"{words}: during {during}" if during and idle.ratio.median > 0 else words]

    def _counts(self) -> list[str]:
        operators = next((row.operators for row in of_kind(self.rows, Operators)), 0)
        launches = values(of_kind(self.rows, LaunchTime), "seconds")
        if not operators or not launches:
            return []
        lines = [
            f"{operators:,} operators at {format_quantity(figure(launches).median / operators, 's')} each for the launch alone"
        ]
        return lines + [f"they launch {row.kernels:,.0f} kernels" for row in of_kind(self.rows, Kernels)[:1]]

    def _ceilings(self) -> str:
        order = sorted(self.figures, key=self.seconds, reverse=True)
        gains = [
            f"{_times(self.ceiling(part))} without {part}" for part in order if self.share(part) >= WORTH_REPORTING
        ]
        return (
            f"steps can become at most this many times faster: {', '.join(gains)}"
            if gains
            else "no part is worth removing"
        )

    def _gain_of(self, cure: Remedy | None) -> list[str]:
        if cure is None or len(cure.removes) < 2:
            return []
        setting = ", ".join(f"{name}={value}" for name, value in cure.setting.items())
        parts, gain = " and ".join(cure.removes), self.ceiling(*cure.removes)
        if self.device == "cpu":
            return [f"{_times(gain)} as fast without {parts}; {setting} also computes in C, which can gain more"]
        return [f"{setting} removes {parts}: steps are {_most(gain)} as fast"]

    def _reading_lines(self) -> list[str]:
        lines = []
        for row in of_kind(self.rows, LineRead):
            place = f"{row.place} (in {row.function}: {row.source})" if row.place else "code other than yours"
            times = "once" if row.reads == 1 else f"{row.reads:,} times"
            lines.append(f"{place} reads a value {times} per step, and a GPU would stop each time")
        return lines

    def uncertainty(self, executor: str) -> str:
        """What could make it wrong."""
        spread = self.step.spread / self.step.median
        rounds = (
            f"steps differ by {spread:.0%} between their quartiles"
            if self.step.count > 2
            else "there were too few rounds"
        )
        method = (
            "operators are replayed alone, with their data still in the cache"
            if self.device == "cpu"
            else "the profiler times kernels, the clock the step and its host, and idle time is the difference; waits for "
            "reads in your code count as host work"
        )
        words = f"{rounds}; {method}"
        return (
            f"{words}; eager steps were measured, not executor={executor}"
            if executor in ("graph", "compile")
            else words
        )


def _rest(rows: Sequence[Measurement]) -> float | None:
    """Median over the rounds of the step minus its parts; None if no round has both."""
    steps = {row.round: row.seconds for row in of_kind(rows, StepTime)}
    sums: dict[int, float] = {}
    for row in of_kind(rows, PartTime):
        if row.part in PARTS and row.round in steps:
            sums[row.round] = sums.get(row.round, 0.0) + row.seconds
    return figure([steps[turn] - total for turn, total in sums.items()]).median if sums else None


def _percentages(share: Figure) -> str:
    """`63% (61% … 65%)`; a fraction is between 0 and 1, also where it was measured beyond."""
    median, low, high = (max(0.0, min(1.0, value)) for value in (share.median, share.low, share.high))
    return f"{median:.0%} ({low:.0%} … {high:.0%})" if share.count > 1 else f"{median:.0%} (once)"


def _times(ratio: float) -> str:
    return f"more than {MOST:.0f} ×" if ratio >= MOST else f"{ratio:.2f} ×"


def _most(ratio: float) -> str:
    return _times(ratio) if ratio >= MOST else f"at most {_times(ratio)}"


def _faster_device(anatomies: Sequence[Anatomy]) -> Remedy | None:
    """The CPU, if its steps are clearly shorter than those of the device that a run would use."""
    main = anatomies[-1]
    for other in anatomies[:-1]:
        sides = difference(of_kind(main.rows, StepTime), of_kind(other.rows, StepTime))
        if sides is not None and sides.slower:
            words = sides.words(f"a step on {main.device}", f"one on {other.device}")
            return Remedy({"device": other.device}, f"use {other.device} for this job: {words}")
    return None
