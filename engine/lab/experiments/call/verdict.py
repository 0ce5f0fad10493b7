"""The verdict of `call`: what a call does and costs besides `forward`, and how much of the job's step that is.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.differences import Difference, difference, estimate, gap, share, stated
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.call.schema import (
    CALL,
    FORWARD,
    FUNCTION,
    HOOKED,
    HOOKED_FORWARD,
    CallTime,
    HookCounts,
    ModuleCalls,
    StepTime,
)
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, figure, grouped, quartiles_apart, select, values, with_spread
from epochtop.engine.protocol.experiments import Estimate, Verdict
from epochtop.engine.protocol.quantities import format_percent, format_quantity

NOTABLE = 0.05
"""Fraction of a step from which calls matter."""
MODULES = {"empty": "a module that does nothing", "linear": "a linear layer of 4 numbers"}


def conclude(findings: Findings) -> Verdict:
    """What a call does and costs besides forward, and how much of the job's step that is."""
    calls = _Calls(findings.rows)
    if calls.ratio is None or calls.extra is None:
        return too_few(f"{CALL} and {FORWARD} in the same round")
    shares = [one for device in findings.devices if (one := _StepShare.of(findings.rows, device, calls)) is not None]
    notable = bool(shares) and shares[-1].notable
    return Verdict(
        finding=calls.finding() + (shares[-1].finding() if shares else ""),
        evidence=(*calls.evidence(), *(line for one in shares for line in one.evidence())),
        next_step=_next_step(calls, notable),
        uncertainty=calls.uncertainty(),
        estimates=(*stated("cost of a call", "s", calls.extra), *(shares[-1].estimates() if shares else ())),
    )


class _Calls:
    """The time of each way to call, and the hooks that it runs."""

    def __init__(self, rows: Sequence[Measurement]) -> None:
        self._calls = of_kind(rows, CallTime)
        self._hooks = {row.way: row for row in of_kind(rows, HookCounts)}
        call, forward = self._rows("empty", CALL), self._rows("empty", FORWARD)
        self.ratio: Difference | None = difference(call, forward)
        self.extra: Figure | None = gap(call, forward)
        """Seconds by which a call is longer than its forward."""

    def _rows(self, module: str, way: str) -> list[CallTime]:
        return select(self._calls, module=module, way=way)

    @property
    def distinct(self) -> bool:
        return self.ratio is not None and self.ratio.distinct

    def finding(self) -> str:
        assert self.extra is not None
        call, forward = self._hooks.get(CALL), self._hooks.get(FORWARD)
        counts = ""
        if call and forward:
            counts = (
                f"; hooks ran in {call.hook_after} of {call.calls} calls of {CALL} and in {forward.hook_after} of "
                f"{forward.calls} of {FORWARD}"
            )
        assert self.ratio is not None
        if not self.distinct:
            return f"{self.ratio.words(CALL, FORWARD)}{counts}"
        if self.extra.median > 0:
            return f"{CALL} takes {with_spread(self.extra)} longer than {FORWARD}{counts}"
        return f"{FORWARD} takes {format_quantity(-self.extra.median, 's')} longer than {CALL}{counts}"

    def evidence(self) -> list[str]:
        lines = [f"{way} runs, in this order: {row.order}" for way, row in self._hooks.items()]
        for module, name in MODULES.items():
            times = grouped(select(self._calls, module=module), ("way",), "seconds")
            if times:
                listed = ", ".join(f"{way} {with_spread(time)}" for (way,), time in times.items())
                lines.append(f"{name}: {listed}")
            lines += [
                f"{name}: {sides.words(first, second)}"
                for first, second in ((CALL, FORWARD), (HOOKED, CALL), (HOOKED_FORWARD, FORWARD), (FORWARD, FUNCTION))
                if (sides := difference(self._rows(module, first), self._rows(module, second))) is not None
            ]
        return lines

    def uncertainty(self) -> str:
        times = grouped(self._calls, ("module", "way"), "seconds").values()
        return (
            f"{quartiles_apart('times of one way', times)}; the cost is Python's, and differs between versions of Python and "
            "torch. A call within a step may take longer than in a tight loop, and the hook's own work comes on top"
        )


class _StepShare:
    """The fraction of a step of the plain loop that module calls take on one device: counted, and checked by leaving out."""

    def __init__(self, rows: Sequence[Measurement], device: str, calls: int, step: Figure, extra: Figure) -> None:
        self._device, self._calls, self._step, self._extra = device, calls, step, extra
        steps = select(of_kind(rows, StepTime), device=device)
        times = values(select(steps, way=CALL), "seconds")
        all_s = Figure(calls * extra.median, calls * max(0.0, extra.low), calls * extra.high, extra.count)
        self.counted = share(all_s, estimate(times))
        """The number of calls × the cost of one call of an empty module; None if that is more than the step."""
        self._without = difference(select(steps, way=FORWARD), select(steps, way=CALL))
        engine = select(of_kind(rows, ModuleCalls), device=device, loop="epochtop")
        self._engine_calls = engine[0].calls if engine else None

    @classmethod
    def of(cls, rows: Sequence[Measurement], device: str, calls: _Calls) -> _StepShare | None:
        counted = select(of_kind(rows, ModuleCalls), device=device, loop="plain")
        steps = values(select(of_kind(rows, StepTime), device=device, way=CALL), "seconds")
        step = figure(steps) if steps else None
        if not counted or step is None or not step.median or calls.extra is None or not calls.distinct:
            return None
        return cls(rows, device, counted[0].calls, step, calls.extra)

    @property
    def _left_out(self) -> Figure | None:
        """The fraction by which a step without calls is shorter; below 0 if it is longer. None if too few rounds tell."""
        if self._without is None or self._without.direction == "few":
            return None
        ratio = self._without.ratio
        return Figure(1 - ratio.median, 1 - ratio.high, 1 - ratio.low, ratio.count)

    @property
    def _agree(self) -> bool:
        """Whether both methods allow the same fraction."""
        counted, left_out = self.counted, self._left_out
        return counted is None or left_out is None or (left_out.low <= counted.high and counted.low <= left_out.high)

    @property
    def notable(self) -> bool:
        """Whether calls certainly matter in a step."""
        return self.counted is not None and self.counted.low >= NOTABLE

    def estimates(self) -> list[Estimate]:
        """The fraction by count; its interval includes the other method's if this contradicts the count."""
        one = self._fraction
        if one is None:
            return []
        percent = Figure(100 * one.median, 100 * one.low, 100 * one.high, one.count)
        return list(stated("calls in a step", "%", percent))

    @property
    def _fraction(self) -> Figure | None:
        counted, left_out = self.counted, self._left_out
        if counted is None or left_out is None or self._agree:
            return counted
        low, high = min(counted.low, max(0.0, left_out.low)), max(counted.high, left_out.high)
        return Figure(counted.median, low, high, min(counted.count, left_out.count))

    def finding(self) -> str:
        subject = f"; the {self._calls:,} calls in a step of this job on {self._device}"
        if self.counted is None:
            return f"{subject} cannot be compared with the step: alone they take longer"
        if not self._agree and self._left_out is not None and self._fraction is not None:
            between = f"{format_percent(self._fraction.low)} to {format_percent(self._fraction.high)}"
            return (
                f"{subject} are {between} of its time: {_percent(self.counted)} by count, {_percent(self._left_out)} by "
                "leaving them out"
            )
        return f"{subject} are {_percent(self.counted)} of its time, by count"

    def evidence(self) -> list[str]:
        call, total = format_quantity(self._extra.median, "s"), format_quantity(self._calls * self._extra.median, "s")
        step = f"a plain step calls {self._calls:,} modules and takes {with_spread(self._step)}"
        lines = [f"{step}; {self._calls:,} × {call} = {total}"]
        if self._without is not None:
            agree = f"; this {'agrees with' if self._agree else 'contradicts'} the count" if self._left_out else ""
            lines.append(
                f"{self._without.words('a plain step that calls every forward directly', 'an unchanged one')}{agree}"
            )
        if self._engine_calls is not None:
            lines.append(
                f"epochtop's own step calls {self._engine_calls:,} modules that way; it calls layers of a plain sequence "
                "without hooks directly"
            )
        return [f"{self._device}: {line}" for line in lines]


def _percent(fraction: Figure) -> str:
    low, high = format_percent(fraction.low), format_percent(fraction.high)
    return f"{format_percent(fraction.median)} ({low} … {high})"


def _next_step(calls: _Calls, notable: bool) -> str:
    if not calls.distinct:
        return f"write {CALL}: {FORWARD} skips hooks and has no measurable gain"
    if notable:
        return (
            f"write {CALL} anyway, because {FORWARD} skips hooks; a recorded step calls no modules at all (`epochtop lab "
            "executors` measures it)"
        )
    return f"write {CALL}: {FORWARD} skips hooks, and its gain is a tiny part of a step"
