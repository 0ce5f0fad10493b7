"""What bounds a step: the verdict from its measured parts, the most that each could gain, and what would change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.experiment import Findings, Row, too_few
from epochtop.engine.lab.instruments.timeline import DEVICE
from epochtop.engine.lab.remedies import Remedy, remedy
from epochtop.engine.lab.statistics import Figure, difference, figure, grouped, quantity, select, values, with_spread
from epochtop.engine.protocol.experiments import Cell, Verdict

PARTS = {
    "input": ("input-bound", "getting its batch"),
    "host": ("host-bound", "Python, autograd and other work of the host"),
    "launches": ("launch-bound", "launching its operators"),
    "compute": ("compute-bound", "computing"),
    "transfers": ("transfer-bound", "copying between host and device"),
    "reads": ("read-bound", "reading values from the device"),
}
"""What a job is called whose time goes there, and the part in words."""
TOLERANCE = 0.05
"""Share of the step by which the parts may miss it."""
EXPLAINED = 0.75
"""Share of the step that has to be explained for a verdict."""
CLEARLY_SMALLER = 0.5
"""Ratio that counts as a difference where it was not measured often enough to have a spread."""
WORTH_TELLING = 0.02
"""Share of the step from which a part's ceiling is told."""
LEAST_TOLD = 0.005
"""Share of the step that is not rounded to nothing."""
MOST = 20.0
"""Gains above that are not told apart."""


def conclude(found: Findings) -> Verdict:
    """What bounds the step on the device that a run would take, which is the last; others are told beside it."""
    told = [made for device in found.devices if (made := Anatomy.of(found.rows, device)) is not None]
    if not told:
        return too_few("a whole step and its parts")
    main = told[-1]
    cure = _faster_device(told) or remedy(main.bound, select(found.rows, device=main.device), found.spec)
    return Verdict(
        finding=main.finding(),
        evidence=tuple(line for each in told for line in each.evidence(cure if each is main else None)),
        next_step=cure.words,
        uncertainty=main.uncertainty(found.spec.executor),
        setting=cure.setting,
    )


@dataclass(frozen=True)
class Anatomy:
    """The parts of a step on one device."""

    device: str
    rows: Sequence[Row]
    """Of this device."""
    step: Figure
    figures: dict[str, Figure]
    """Of each part, as measured."""
    rest: float
    """What the parts do not add up to, in seconds; negative where they are more than the step."""

    @classmethod
    def of(cls, rows: Sequence[Row], device: str) -> Anatomy | None:
        """None where the step or every part is missing."""
        mine = select(rows, device=device)
        steps = values(select(mine, kind="step"), "seconds")
        found = grouped(select(mine, kind="part"), ("part",), "seconds")
        figures = {part: found[(part,)] for part in PARTS if (part,) in found}
        rest = _rest(mine)
        if not steps or not figures or rest is None:
            return None
        # a part is not less than nothing: what was taken away too much is not explained either
        rest += sum(min(0.0, part.median) for part in figures.values())
        return cls(device, mine, figure(steps), figures, rest)

    def seconds(self, part: str) -> float:
        """Median of a part, not below 0."""
        return max(0.0, self.figures[part].median) if part in self.figures else 0.0

    def share(self, part: str) -> float:
        """Of the step."""
        return self.seconds(part) / self.step.median

    @property
    def bound(self) -> str:
        """The part that takes most; empty where too much is unexplained."""
        largest = max(self.figures, key=self.seconds)
        return largest if abs(self.rest) <= (1 - EXPLAINED) * self.step.median else ""

    @property
    def rival(self) -> str:
        """The next part, where it is not clearly smaller than the one that takes most, unexplained time included."""
        others = [part for part in self.figures if part != self.bound and self.seconds(part) > 0]
        if not self.bound or not others:
            return ""
        second = max(others, key=self.seconds)
        parts = select(self.rows, kind="part")
        # the smaller to the larger: the other way round, a part near 0 makes ratios of any size
        apart = difference(select(parts, part=second), select(parts, part=self.bound))
        if apart is None or self.share(second) < TOLERANCE:
            return ""
        seldom = apart.ratio.count < 3
        clear = apart.ratio.median < CLEARLY_SMALLER if seldom else apart.distinct and apart.ratio.median < 1
        sure = self.seconds(self.bound) - self.seconds(second) > abs(self.rest)
        return "" if clear and sure else second

    def ceiling(self, *parts: str) -> float:
        """How many times faster steps can become at most without these parts."""
        left = self.step.median - sum(map(self.seconds, parts))
        return self.step.median / left if left * MOST > self.step.median else MOST

    def finding(self) -> str:
        if not self.bound:
            return (
                f"on {self.device} the parts that were measured do not explain a step of {quantity(self.step.median, 's')}: "
                f"{quantity(self.rest, 's')} is unexplained"
            )
        called, words = PARTS[self.bound]
        if self.rival:
            called = f"{called.removesuffix('bound')} and {PARTS[self.rival][0]} alike"
        return (
            f"on {self.device} this job is {called}: {words} takes {self._of_step(self.bound)} of a step's "
            f"{quantity(self.step.median, 's')}, and without it steps are {_most(self.ceiling(self.bound))} as fast"
        )

    def _of_step(self, part: str) -> str:
        return f"{quantity(self.seconds(part), 's')} ({self.share(part):.0%})"

    # --- evidence ------------------------------------------------------------------------------------------------

    def evidence(self, cure: Remedy | None) -> list[str]:
        """Sentences with figures; `cure` is what would help, where this is the device it is for."""
        return [
            f"{self.device}: {line}"
            for line in (
                self._sum(),
                *self._idle(),
                *self._counted(),
                self._ceilings(),
                *self._cured(cure),
                *self._lines(),
            )
        ]

    def _sum(self) -> str:
        order = sorted(self.figures, key=self.seconds, reverse=True)
        parts = ", ".join(f"{part} {self._of_step(part)}" for part in order)
        share = abs(self.rest) / self.step.median
        adds = (
            "the parts add up to the step within 5 %" if share <= TOLERANCE else "the parts do not add up to the step"
        )
        return f"a step takes {with_spread(self.step)}: {parts}; unexplained {quantity(self.rest, 's')} ({share:.1%}): {adds}"

    def _idle(self) -> list[str]:
        """How much of the step the device has nothing to do, and what the host does then."""
        found = difference(select(self.rows, kind="idle"), select(self.rows, kind="step"))
        if found is None:
            alone = "a CPU is its own host: there is no device to be idle"
            return [alone] if self.device == "cpu" else []
        shares = {part: self.share(part) for part in self.figures if part not in DEVICE}
        order = sorted(shares, key=shares.__getitem__, reverse=True)
        told = {part: shares[part] for part in order} | {"unexplained": self.rest / self.step.median}
        during = ", ".join(f"{name} {share:.0%}" for name, share in told.items() if abs(share) >= LEAST_TOLD)
        idle = f"the device is idle {_shares(found.ratio)} of the step"
        return [f"{idle}: during {during}" if during and found.ratio.median > 0 else idle]

    def _counted(self) -> list[str]:
        operators = values(select(self.rows, kind="operators"), "operators")
        launches = values(select(self.rows, kind="launches"), "seconds")
        kernels = values(select(self.rows, kind="kernels"), "kernels")
        if not operators or not operators[0] or not launches:
            return []
        each = quantity(figure(launches).median / operators[0], "s")
        lines = [f"{operators[0]:,.0f} operators at {each} each, with nothing to compute"]
        if kernels:
            lines.append(f"they launch {kernels[0]:,.0f} kernels")
        return lines

    def _ceilings(self) -> str:
        order = sorted(self.figures, key=self.seconds, reverse=True)
        told = [f"without {part} {_times(self.ceiling(part))}" for part in order if self.share(part) >= WORTH_TELLING]
        return f"the most that can be gained: {', '.join(told) or 'nothing that can be seen'}"

    def _cured(self, cure: Remedy | None) -> list[str]:
        if cure is None or len(cure.removes) < 2:
            return []
        setting = ", ".join(f"{name}={value}" for name, value in cure.setting.items())
        parts, gain = " and ".join(cure.removes), self.ceiling(*cure.removes)
        if self.device == "cpu":
            return [
                f"without {parts} together {_times(gain)}; {setting} also computes anew, in C, which can bring more"
            ]
        return [f"{setting} takes away {parts}: steps are {_most(gain)} as fast"]

    def _lines(self) -> list[str]:
        lines = []
        for row in select(self.rows, kind="read"):
            where = (
                f"{row['place']} (in {row['function']}: {row['source']})"
                if row.get("place")
                else "code beside your own"
            )
            many = values([row], "reads")
            times = "once" if many == [1.0] else f"{many[0]:,.0f} times" if many else "now and then"
            lines.append(f"{where} reads a value {times} a step, and a GPU would stop for it each time")
        return lines

    def uncertainty(self, executor: str) -> str:
        """What could make it wrong."""
        spread = self.step.spread / self.step.median
        rounds = (
            f"steps differ by {spread:.0%} between their quartiles"
            if self.step.count > 2
            else "it was measured too seldom"
        )
        told = f"{rounds}; " + (
            "operators are replayed by themselves, with what they need still in the cache"
            if self.device == "cpu"
            else "kernels are timed by the profiler, the step and its host without it, and the device's idle time is what "
            "one leaves of the other; waits of the user's own reads count as the host's"
        )
        if executor in ("graph", "compile"):
            told += f"; eager steps were taken apart, which executor={executor} replaces"
        return told


def _rest(rows: Sequence[Row]) -> float | None:
    """Median over the rounds of the step less its parts; None where no round has both."""
    steps = {row.get("round"): found[0] for row in select(rows, kind="step") if (found := values([row], "seconds"))}
    sums: dict[Cell, float] = {}
    for row in select(rows, kind="part"):
        found = values([row], "seconds")
        if row.get("part") in PARTS and row.get("round") in steps and found:
            sums[row.get("round")] = sums.get(row.get("round"), 0.0) + found[0]
    return figure([steps[turn] - total for turn, total in sums.items()]).median if sums else None


def _shares(found: Figure) -> str:
    """`63% (61% … 65%)`; a share that was measured as less than nothing is nothing."""
    median, low, high = (max(0.0, share) for share in (found.median, found.low, found.high))
    return f"{median:.0%} ({low:.0%} … {high:.0%})" if found.count > 1 else f"{median:.0%} (once)"


def _times(ratio: float) -> str:
    return f"more than {MOST:.0f} ×" if ratio >= MOST else f"{ratio:.2f} ×"


def _most(ratio: float) -> str:
    return _times(ratio) if ratio >= MOST else f"at most {_times(ratio)}"


def _faster_device(told: Sequence[Anatomy]) -> Remedy | None:
    """The CPU, where its steps are clearly shorter than those of the device that a run would take."""
    main = told[-1]
    for other in told[:-1]:
        apart = difference(select(main.rows, kind="step"), select(other.rows, kind="step"))
        if apart is not None and apart.distinct and apart.ratio.median > 1:
            words = apart.words(f"a step on {main.device}", f"one on {other.device}")
            return Remedy({"device": other.device}, f"use {other.device} for this one: {words}", ())
    return None
