"""The verdict of `call`: what a call does and costs besides `forward`, and how much of the job's step that is.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    difference,
    figure,
    gap,
    grouped,
    quartiles_apart,
    select,
    values,
    with_spread,
)
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.quantities import format_quantity

NOTABLE = 0.05
"""Fraction of a step from which calls matter."""
MODULES = {"empty": "a module that does nothing", "linear": "a linear layer of 4 numbers"}


def conclude(findings: Findings) -> Verdict:
    """What a call does and costs besides forward, and how much of the job's step that is."""
    calls = _Calls(findings.rows)
    if calls.ratio is None or calls.extra is None:
        return too_few(f"{CALL} and {FORWARD} in the same round")
    shares = [
        share for device in findings.devices if (share := _StepShare.of(findings.rows, device, calls)) is not None
    ]
    notable = bool(shares) and shares[-1].share >= NOTABLE
    return Verdict(
        finding=calls.finding() + (shares[-1].finding() if shares else ""),
        evidence=(*calls.evidence(), *(line for share in shares for line in share.evidence())),
        next_step=_next_step(calls, notable),
        uncertainty=calls.uncertainty(),
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
        if not self.distinct:
            return f"no difference in time between {CALL} and {FORWARD}{counts}"
        longer = "longer" if self.extra.median > 0 else "less"
        return f"{CALL} takes {format_quantity(abs(self.extra.median), 's')} {longer} than {FORWARD}{counts}"

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
    """The fraction of a step of the plain loop that module calls take on one device."""

    def __init__(self, rows: Sequence[Measurement], device: str, calls: int, step: Figure, extra: Figure) -> None:
        self._device, self._calls, self._step, self._extra = device, calls, step, extra
        steps = select(of_kind(rows, StepTime), device=device)
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
    def _counted_share(self) -> float:
        """The number of calls × the cost of one call of an empty module."""
        return max(0.0, self._calls * self._extra.median / self._step.median)

    @property
    def share(self) -> float:
        """The measured gain of a step without calls, if it is visible; else the share by count."""
        visible = self._without is not None and self._without.distinct and self._without.ratio.median < 1
        return 1 - self._without.ratio.median if visible and self._without is not None else self._counted_share

    def finding(self) -> str:
        method = "by count" if self.share == self._counted_share else "measured without them"
        return f"; the {self._calls:,} calls in a step of this job on {self._device} are {self.share:.2%} of its time, {method}"

    def evidence(self) -> list[str]:
        call, total = format_quantity(self._extra.median, "s"), format_quantity(self._calls * self._extra.median, "s")
        step = f"a plain step calls {self._calls:,} modules and takes {with_spread(self._step)}"
        lines = [f"{step}; {self._calls:,} × {call} = {total}, {self._counted_share:.2%}"]
        if self._without is not None:
            lines.append(self._without.words("a plain step that calls every forward directly", "an unchanged one"))
        if self._engine_calls is not None:
            lines.append(
                f"epochtop's own step calls {self._engine_calls:,} modules that way; it calls layers of a plain sequence "
                "without hooks directly"
            )
        return [f"{self._device}: {line}" for line in lines]


def _next_step(calls: _Calls, notable: bool) -> str:
    if not calls.distinct:
        return f"write {CALL}: {FORWARD} skips hooks and has no measurable gain"
    if notable:
        return (
            f"write {CALL} anyway, because {FORWARD} skips hooks; a recorded step calls no modules at all (`epochtop lab "
            "executors` measures it)"
        )
    return f"write {CALL}: {FORWARD} skips hooks, and its gain is a tiny part of a step"
