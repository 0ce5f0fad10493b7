"""What an operator's threads bring: the time of a step over their number, on the CPU.

Threads share the arithmetic of one operator and meet again at its end. Meeting costs the same however little there was
to share, and more where a neighbor keeps one of the CPUs; so the best number is the job's and the moment's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    difference,
    grouped,
    quantity,
    quartiles_apart,
    select,
    values,
    with_spread,
)
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import Invalid, RunSpec

ALL = 8
"""Up to so many CPUs every number of threads is measured; of more, the powers of 2 and the last."""


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` cpus (how many may be used) and step. Raises Invalid where the CPU is not to be measured."""
    from epochtop.engine.hardware import usable_cpus

    if "cpu" not in bench.devices:
        raise Invalid("device", f"threads are the CPU's, and {', '.join(bench.devices)} was asked for; use cpu or auto")
    usable = usable_cpus()
    yield {"kind": "cpus", "usable": usable}
    if usable == 1:
        bench.cannot_see.append("only 1 CPU may be used here, so that more threads than 1 were not measured")
    yield from interleave(bench, _cases(bench, usable))


def counts(usable: int) -> list[int]:
    """Numbers of threads that are measured where so many CPUs may be used."""
    if usable <= ALL:
        return list(range(1, usable + 1))
    return [*(1 << power for power in range((usable - 1).bit_length())), usable]


def _cases(bench: ExperimentContext, usable: int) -> list[Case]:
    """Steps with every number of threads, and with the one that a run of the job takes, which is its `own`."""
    import torch

    from epochtop.engine.lab.instruments.jobs import job_of

    bench.say("building the job on cpu")
    job = job_of(bench.spec, "cpu")
    own = torch.get_num_threads()
    numbers = sorted({*counts(usable), own})
    bench.say(f"taking steps with {', '.join(map(str, numbers))} threads")
    return [
        Case({"kind": "step", "threads": number, "own": int(number == own)}, _with_threads(number, job.step))
        for number in numbers
    ]


def _with_threads(number: int, step: Callable[[], object]) -> Callable[[int], float]:
    """Seconds of so many steps on so many threads, which a step before has made."""
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated

    run = repeated(torch.device("cpu"), step)

    def taken(times: int) -> float:
        torch.set_num_threads(number)
        step()
        return run(times)

    return taken


# --- concluding --------------------------------------------------------------------------------------------------


class _Counts:
    """Times of a step by the number of threads."""

    def __init__(self, rows: Sequence[Row]) -> None:
        steps = [row for row in select(rows, kind="step") if values([row], "seconds")]
        self.times: dict[int, Figure] = {
            int(key[0]): found for key, found in grouped(steps, ("threads",), "seconds").items() if key[0] is not None
        }
        self._rows = steps
        self.own = next((int(number) for number in values(select(steps, own=1), "threads")), None)
        """The number that a run of the job takes; None where rows do not say."""
        self.numbers = sorted(self.times)

    def against(self, number: int, other: int) -> Difference | None:
        """The time on `number` threads to that on `other`."""
        return difference(select(self._rows, threads=number), select(self._rows, threads=other))

    def differ(self, number: int, other: int) -> bool:
        """By more than the spread."""
        found = self.against(number, other)
        return found is not None and found.distinct

    def fastest(self) -> int:
        return min(self.numbers, key=lambda number: self.times[number].median)

    def best(self) -> int:
        """The fewest threads that the fastest number of them is not clearly better than."""
        fastest = self.fastest()
        return next(number for number in self.numbers if number == fastest or not self.differ(number, fastest))

    def matters(self) -> bool:
        """Whether any other number is clearly slower than the best."""
        best = self.best()
        return any(
            self.differ(number, best) and self.times[number].median > self.times[best].median for number in self.numbers
        )


def conclude(found: Findings) -> Verdict:
    """The fewest threads that are as fast as any, if the number makes a difference."""
    seen, usable = _Counts(found.rows), values(select(found.rows, kind="cpus"), "usable")
    if usable == [1.0] and seen.numbers:
        return _one_cpu(seen)
    if len(seen.numbers) < 2:
        return too_few("steps with two numbers of threads")
    best = seen.best()
    matters = seen.matters()
    return Verdict(
        finding=_finding(seen, best, matters),
        evidence=_evidence(seen),
        next_step=_next_step(seen, best, matters, found.spec.threads),
        uncertainty=_uncertainty(seen),
        setting={"threads": str(best)} if matters and best not in (found.spec.threads, seen.own) else {},
    )


def _one_cpu(seen: _Counts) -> Verdict:
    return Verdict(
        finding="this process may use 1 CPU: there is nothing to choose, 1 thread it is",
        evidence=(f"a step takes {with_spread(seen.times[seen.numbers[0]])} with 1 thread",),
        next_step="give the process more CPUs (its affinity or its control group limits them), or leave threads alone",
        uncertainty="what more CPUs would bring cannot be seen here",
    )


def _finding(seen: _Counts, best: int, matters: bool) -> str:
    last = seen.numbers[-1]
    if not matters:
        return f"no difference between 1 and {_threads(last)}: times of a step spread more than they differ"
    slowest = max(seen.numbers, key=lambda number: seen.times[number].median)
    said = (
        f"{_threads(best)} {'is' if best == 1 else 'are'} best for this job: a step takes "
        f"{quantity(seen.times[best].median, 's')}, and {quantity(seen.times[slowest].median, 's')} with {slowest}"
    )
    if best == 1:
        return f"{said}; its operators are too small to share, or the CPUs too busy"
    return said if best == last else f"{said}; more than {best} bring nothing"


def _evidence(seen: _Counts) -> tuple[str, ...]:
    first = seen.numbers[0]
    lines = [f"{_threads(first)}: a step takes {with_spread(seen.times[first])}"]
    for number in seen.numbers[1:]:
        line = f"{_threads(number)}: {with_spread(seen.times[number])}"
        against = seen.against(number, first)
        if against is not None:
            line += f"; {against.words(f'a step with {_threads(number)}', f'one with {_threads(first)}')}"
        lines.append(line)
    return tuple(lines)


def _next_step(seen: _Counts, best: int, matters: bool, asked: int) -> str:
    if not matters:
        return "leave threads alone; fewer of them leave CPUs to others"
    if asked == best:
        return f"keep threads={best}"
    if best == seen.own:
        return f"keep threads=0, which chose {best} here; it chooses between 1 and all anew when a run begins"
    chose = f" and chose {seen.own} here" if seen.own is not None else ""
    own = f" (threads=0, as now, chooses by itself between 1 and all when a run begins{chose})" if asked == 0 else ""
    return f"start the run with threads={best}{own}"


def _uncertainty(seen: _Counts) -> str:
    return (
        f"{quartiles_apart('times with one number of threads', seen.times.values())}; what else runs on this machine "
        "decides too, since all threads wait for the slowest. Measured with eager steps: executor=graph on the CPU runs "
        "on 1 thread whatever the number"
    )


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"


EXPERIMENT = Experiment(
    name="threads",
    title="How many threads an operator should get",
    measures="the time of a step on the CPU with 1, 2, … as many threads as CPUs may be used, in turn and repeatedly",
    why="torch takes a thread a core unless it is told otherwise. Large operators are shared well; small ones wait longer "
    "for the last thread than they compute, and on a busy machine that wait grows without bound",
    reading="where the curve falls, threads help; half the time with twice the threads is all there is to gain. Where it "
    "rises, they stand in each other's way",
    pictures=(
        Picture(
            title="Time of a step over threads",
            kind="lines",
            x="threads",
            y="seconds",
            unit="s",
            x_title="threads",
            y_title="seconds a step",
            where={"kind": "step"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    job=RunSpec(),
)
