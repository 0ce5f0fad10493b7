"""The verdict of `executors`: the best executor for as many steps as the job has.

Pure, and imports no torch.
"""

from __future__ import annotations

from epochtop.engine.lab.differences import stated
from epochtop.engine.lab.experiment import DeviceAnswer, Findings, verdict_of
from epochtop.engine.lab.experiments.executors.breakeven import Cost, costs
from epochtop.engine.lab.experiments.executors.schema import CACHES, JobFacts, LeftOut
from epochtop.engine.lab.measurements import of_kind
from epochtop.engine.lab.statistics import Figure, quartiles_apart, select, with_spread
from epochtop.engine.protocol.experiments import Estimate, Line, Verdict
from epochtop.engine.protocol.quantities import format_quantity


def conclude(findings: Findings) -> Verdict:
    """The best executor for as many steps as the job has, on the device that it would be trained on."""
    answers = [_DeviceCosts.of(findings, device) for device in findings.devices]
    return verdict_of(answers, "steps of eager and of another executor, or the reason why there is none")


class _DeviceCosts(DeviceAnswer):
    """The executors of one device, in sentences."""

    def __init__(self, device: str, steps: int, by_name: dict[str, Cost], left_out: dict[str, str], job: str) -> None:
        self._device, self._steps, self._costs, self._left_out = device, steps, by_name, left_out
        self._job_executor = job
        self._eager = by_name["eager"]
        self._others = [cost for name, cost in by_name.items() if name != "eager"]

    @classmethod
    def of(cls, findings: Findings, device: str) -> _DeviceCosts | None:
        here = select(findings.rows, device=device)
        jobs, by_name = of_kind(here, JobFacts), costs(here)
        left_out = {row.executor: row.why for row in of_kind(here, LeftOut)}
        if not jobs or "eager" not in by_name or not (len(by_name) > 1 or left_out):
            return None
        return cls(device, jobs[0].steps, by_name, left_out, findings.spec.executor)

    def best(self) -> Cost:
        """The executor that gains most in a first run; eager unless another is faster by more than the spread."""
        return self._most({cost.name: cost.gain_s(self._steps, self._extra_s(cost.first)) for cost in self._others})

    def now(self) -> Cost:
        """The same for a run from now on, which finds in the cache what this experiment left there."""
        return self._most({cost.name: cost.gain_s(self._steps, self._extra_s(cost.again)) for cost in self._others})

    def _most(self, gains: dict[str, float]) -> Cost:
        name = max(gains, key=gains.__getitem__, default="eager")
        return self._costs[name] if gains.get(name, 0.0) > 0 else self._eager

    def _extra_s(self, setup: Figure) -> float:
        """Seconds by which a set-up is longer than eager's."""
        return setup.median - self._eager.first.median

    @property
    def helps(self) -> bool:
        """Whether another executor than the job's is known to be better; `auto` starts with eager anyway."""
        best, current = self.now(), self._costs.get(self._job_executor)
        if best.name == self._job_executor:
            return False
        return best.faster or (
            current is not None and current.against_eager is not None and current.against_eager.distinct
        )

    def finding(self) -> str:
        best, job = self.best(), f"this job's {self._steps:,} steps on {self._device}"
        eager_s = format_quantity(self._eager.total_s(self._steps), "s")
        if best is not self._eager:
            setup = f"{format_quantity(best.first.median, 's')}{CACHES[next(iter(best.setups))]}"
            return (
                f"{best.name} is best for {job}: {format_quantity(best.total_s(self._steps), 's')} instead of {eager_s}, with a "
                f"set-up of {setup}; it pays from {self._even(best)}"
            )
        if not self._others:
            return f"eager is the only executor that was measured for {job}: {eager_s}"
        faster = [cost for cost in self._others if cost.faster]
        if faster:
            later = ", ".join(f"{cost.name} pays from {self._even(cost)}" for cost in faster)
            return f"eager is best for the first run of {job}, {eager_s}: {later}"
        slower = [cost.name for cost in self._others if cost.slower]
        if len(slower) == len(self._others):
            return f"eager is best for {job}: steps of {' and of '.join(slower)} are slower"
        alike = [cost for cost in self._others if cost.name not in slower and cost.against_eager is not None]
        words = [
            cost.against_eager.words("steps of eager", f"of {cost.name}", "are") for cost in alike if cost.against_eager
        ]
        return f"{'; '.join(words) or 'steps were not compared'} for {job}; a set-up would not pay"

    def _even(self, cost: Cost, setup: Figure | None = None) -> str:
        steps = cost.pays_from(self._extra_s(setup or cost.first))
        return "no number of steps" if steps is None else f"{max(1, round(steps)):,} steps"

    def evidence(self) -> list[str]:
        lines = [f"a step of {self._eager.name} takes {with_spread(self._eager.step)}"]
        for cost in self._others:
            against = f"; {cost.against_eager.words(cost.name, 'eager')}" if cost.against_eager else ""
            lines += [f"a step of {cost.name} takes {with_spread(cost.step)}{against}", self._set_up(cost)]
        lines += [f"{name} was not measured: {reason}" for name, reason in self._left_out.items()]
        return [f"{self._device}: {line}" for line in lines]

    def _set_up(self, cost: Cost) -> str:
        setups = [
            f"{with_spread(setup)}{CACHES[cache]}"
            + (f", paid back after {self._even(cost, setup)}" if cost.faster else "")
            for cache, setup in cost.setups.items()
        ]
        never = "" if cost.faster else "; it never pays, because steps are not faster"
        return f"setting up {cost.name} takes {'; '.join(setups)}{never}"

    def next_step(self) -> str:
        now = self.now()
        if now is self._eager:
            return "stay with executor=eager, or with auto, which starts with eager"
        start = f"start the run with executor={now.name}"
        if now is not self.best():
            return f"{start}: this measurement filled the cache, so it now pays from {self._even(now, now.again)}"
        auto = " (auto starts with eager and changes to graph by itself if it expects that to pay)"
        return start + (auto if now.name == "graph" else "")

    def setting(self) -> dict[str, str]:
        return {"executor": self.now().name} if self.helps else {}

    def uncertainty(self) -> str:
        parts = [quartiles_apart("times of a step", (cost.step for cost in self._costs.values()))]
        for cost in self._others:
            even = cost.pays_from(self._extra_s(cost.first))
            if even is not None and even / 1.5 < self._steps < even * 1.5:
                parts.append(f"the job has about as many steps as {cost.name} needs to pay, so either may win")
        if self._left_out:
            parts.append(f"{', '.join(self._left_out)} might be better and was not measured")
        return "; ".join(parts)

    def estimates(self) -> list[Estimate]:
        """The step time of every other executor relative to eager."""
        sides = {cost.name: cost.against_eager for cost in self._others}
        ratios = {name: one.ratio for name, one in sides.items() if one}
        return [
            one for name, ratio in ratios.items() for one in stated(f"time of {name} relative to eager", "×", ratio)
        ]

    def lines(self) -> list[Line]:
        """Seconds of a run over its steps, from one step to ten times the steps of the job."""
        steps = [1.0]
        while steps[-1] < 10 * self._steps:
            steps.append(steps[-1] * 2)
        return [
            Line(
                name=f"{self._device} {cost.name}, computed",
                points=tuple((count, cost.total_s(count)) for count in steps),
            )
            for cost in self._costs.values()
        ]
