"""The verdict of `threads`: the fewest threads that are as fast as any.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.differences import Difference, difference, stated
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.threads.schema import CpuFacts, StepTime
from epochtop.engine.lab.measurements import of_kind
from epochtop.engine.lab.statistics import Figure, figure, quartiles_apart, select, values, with_spread
from epochtop.engine.protocol.experiments import Estimate, Verdict
from epochtop.engine.protocol.quantities import format_quantity


class _Counts:
    """Times of a step by the number of threads."""

    def __init__(self, steps: Sequence[StepTime]) -> None:
        self._steps = steps
        self.numbers = sorted({step.threads for step in steps})
        self.times: dict[int, Figure] = {
            number: figure(values(select(steps, threads=number), "seconds")) for number in self.numbers
        }
        self.own = next((step.threads for step in steps if step.own), None)
        """The number that a run of the job uses; None if it is unknown."""

    def compared(self, number: int, other: int) -> Difference | None:
        """The time on `number` threads over the time on `other`."""
        return difference(select(self._steps, threads=number), select(self._steps, threads=other))

    def slower(self, number: int, other: int) -> bool:
        """Whether steps on `number` threads take longer than on `other`."""
        sides = self.compared(number, other)
        return sides is not None and sides.slower

    def best(self) -> int:
        """The fewest threads that are not slower than the fastest number."""
        fastest = min(self.numbers, key=lambda number: self.times[number].median)
        return next(number for number in self.numbers if number == fastest or not self.slower(number, fastest))

    def matters(self) -> bool:
        """Whether any other number is slower than the best."""
        return any(self.slower(number, self.best()) for number in self.numbers)

    def estimates(self) -> list[Estimate]:
        """The step time of each number of threads relative to the first."""
        first = self.numbers[0]
        ratios = {number: self.compared(number, first) for number in self.numbers[1:]}
        return [
            one
            for number, sides in ratios.items()
            if sides is not None
            for one in stated(f"time on {number} threads relative to {first}", "×", sides.ratio)
        ]


def conclude(findings: Findings) -> Verdict:
    """The fewest threads that are as fast as any, if the number makes a difference."""
    counts = _Counts(of_kind(findings.rows, StepTime))
    usable = [row.usable for row in of_kind(findings.rows, CpuFacts)]
    if usable == [1] and counts.numbers:
        return _one_cpu(counts)
    if len(counts.numbers) < 2:
        return too_few("steps with two numbers of threads")
    best, matters = counts.best(), counts.matters()
    return Verdict(
        finding=_finding(counts, best, matters),
        evidence=_evidence(counts),
        next_step=_next_step(counts, best, matters, findings.spec.threads),
        uncertainty=_uncertainty(counts),
        setting={"threads": str(best)} if matters and best not in (findings.spec.threads, counts.own) else {},
        estimates=tuple(counts.estimates()),
    )


def _one_cpu(counts: _Counts) -> Verdict:
    return Verdict(
        finding="there is nothing to choose: this process may use 1 CPU, and so 1 thread",
        evidence=(f"a step takes {with_spread(counts.times[counts.numbers[0]])} with 1 thread",),
        next_step="keep threads as it is, or give the process more CPUs (its affinity or its control group limits them)",
        uncertainty="the gain from more CPUs cannot be measured here",
    )


def _finding(counts: _Counts, best: int, matters: bool) -> str:
    last = counts.numbers[-1]
    if not matters:
        sides = counts.compared(last, counts.numbers[0])
        return (
            sides.words(_threads(last), _threads(counts.numbers[0]), "are") if sides else "no two numbers were compared"
        )
    slowest = max(counts.numbers, key=lambda number: counts.times[number].median)
    sides = counts.compared(slowest, best)
    compared = f", and {sides.amount()} with {slowest}" if sides is not None else ""
    finding = (
        f"{_threads(best)} {'is' if best == 1 else 'are'} best for this job: a step takes "
        f"{format_quantity(counts.times[best].median, 's')}{compared}"
    )
    if best == 1:
        return f"{finding}; its operators are too small to share, or the CPUs too busy"
    return finding if best == last else f"{finding}; more than {best} gain nothing"


def _evidence(counts: _Counts) -> tuple[str, ...]:
    first = counts.numbers[0]
    lines = [f"{_threads(first)}: a step takes {with_spread(counts.times[first])}"]
    for number in counts.numbers[1:]:
        line = f"{_threads(number)}: {with_spread(counts.times[number])}"
        sides = counts.compared(number, first)
        if sides is not None:
            line += f"; {sides.words(f'a step with {_threads(number)}', f'one with {_threads(first)}')}"
        lines.append(line)
    return tuple(lines)


def _next_step(counts: _Counts, best: int, matters: bool, current: int) -> str:
    if not matters:
        return "leave threads alone; fewer threads leave CPUs to other programs"
    if current == best:
        return f"keep threads={best}"
    if best == counts.own:
        return f"keep threads=0, which chose {best} here; it chooses between 1 and all again when a run starts"
    choice = f", and chose {counts.own} here" if counts.own is not None else ""
    automatic = f" (threads=0 chooses between 1 and all when a run starts{choice})" if current == 0 else ""
    return f"start the run with threads={best}{automatic}"


def _uncertainty(counts: _Counts) -> str:
    return (
        f"{quartiles_apart('times with one number of threads', counts.times.values())}; other programs on this machine matter, "
        "because all threads wait for the slowest. Steps were eager: executor=graph on the CPU always uses 1 thread"
    )


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"
