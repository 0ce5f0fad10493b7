"""The verdict of `parallel`: whether more processes run the same step faster, and what else does on the same CPUs.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.differences import Difference, difference, stated
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.parallel.schema import DATA_PARALLEL, PROCESSES, THREADS, StepTime, per_row
from epochtop.engine.lab.measurements import of_kind
from epochtop.engine.lab.statistics import figure, select, values
from epochtop.engine.protocol.experiments import Estimate, Line, Verdict
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.engine.protocol.spec import RunSpec

Way = tuple[str, int]
"""What runs the steps, and the number of its parts."""
NAMES = {PROCESSES: "{} processes", THREADS: "1 process with {} threads", DATA_PARALLEL: "DataParallel on {} GPUs"}


def conclude(findings: Findings) -> Verdict:
    """Whether more processes run the same step faster, by how much, and whether threads do better."""
    scaling = _Scaling(of_kind(findings.rows, StepTime), findings.spec)
    if not scaling.ways:
        return too_few("one process and several in the same round")
    return Verdict(
        finding=scaling.finding(),
        evidence=tuple(scaling.evidence()),
        next_step=scaling.next_step(),
        uncertainty=scaling.uncertainty(),
        setting=scaling.setting(),
        estimates=tuple(scaling.estimates()),
        lines=(Line(name="ideal", points=tuple((float(count), float(count)) for count in scaling.counts())),),
    )


class _Scaling:
    """Steps of one process compared with each other way."""

    def __init__(self, steps: Sequence[StepTime], spec: RunSpec) -> None:
        self._spec = spec
        self._steps = per_row(steps)
        self._ones = select(self._steps, parts=1)
        self.ways: dict[Way, Difference] = {}
        for way, parts in dict.fromkeys((step.way, step.parts) for step in self._steps if step.parts > 1):
            speed_up = difference(self._ones, select(self._steps, way=way, parts=parts))
            if speed_up is not None:
                self.ways[way, parts] = speed_up

    def counts(self) -> list[int]:
        """The numbers of processes that were measured."""
        return sorted({1, *(parts for _, parts in self.ways)})

    def _best(self, name: str) -> Way | None:
        """The fastest of these ways that is faster than one process."""
        faster = [
            (speed_up.ratio.median, way) for way, speed_up in self.ways.items() if way[0] == name and speed_up.slower
        ]
        return max(faster)[1] if faster else None

    def finding(self) -> str:
        best, threads = self._best(PROCESSES), self._best(THREADS)
        also = f"; {self._sentence(threads)}" if threads is not None else ""
        if best is not None:
            return f"{self._sentence(best)}{also}"
        several = [(speed_up.ratio.median, way) for way, speed_up in self.ways.items() if way[0] == PROCESSES]
        if not several:
            return f"several processes were not measured; {self._sentence(next(iter(self.ways)))}"
        way = max(several)[1]
        if self.ways[way].direction == "few":
            return f"{_name(way)} have too few rounds to compare with one process"
        return f"{self._sentence(way)}{also}"

    def _sentence(self, way: Way) -> str:
        speed_up = self.ways[way]
        words = speed_up.inverse.words(_name(way), "one process", _verb(way))
        return f"{words}, an efficiency of {speed_up.ratio.median / way[1]:.0%}" if speed_up.distinct else words

    def estimates(self) -> list[Estimate]:
        """The speed-up of every way."""
        return [
            one
            for way, speed_up in self.ways.items()
            for one in stated(f"speed-up of {_name(way)}", "×", speed_up.ratio)
        ]

    def evidence(self) -> list[str]:
        rows = self._ones[0].rows
        one = figure(values(self._ones, "seconds"))
        lines = [f"one process takes {format_quantity(one.median * rows, 's')} for a step of {rows:,} rows"]
        lines += [self._sentence(way) for way in self.ways]
        for count in self.counts():
            for other in (THREADS, DATA_PARALLEL):
                sides = self._processes_against(count, other)
                if sides is not None:
                    lines.append(sides.words(_name((PROCESSES, count)), _name((other, count)), "are"))
        return lines

    def _processes_against(self, count: int, other: str) -> Difference | None:
        processes = select(self._steps, way=PROCESSES, parts=count)
        return difference(processes, select(self._steps, way=other, parts=count)) if count > 1 else None

    def setting(self) -> dict[str, str]:
        """The setting of the fastest way; threads unless processes are clearly faster, because they need less memory."""
        processes, threads = self._best(PROCESSES), self._best(THREADS)
        if processes is None:
            return {"threads": str(threads[1])} if threads is not None else {}
        if threads is not None:
            sides = self._processes_against(processes[1], THREADS)
            if sides is None or not sides.faster:
                return {"threads": str(threads[1])}
        batch = {"batch_size": str(max(1, self._spec.batch_size // processes[1]))} if self._spec.batch_size else {}
        on_cpu = self._ones[0].device == "cpu"
        return {"processes": str(processes[1]), **({"threads": "1"} if on_cpu else {}), **batch}

    def next_step(self) -> str:
        setting = self.setting()
        if not setting:
            return "train with one process; several need a larger batch or a larger model between two exchanges"
        words = "train with " + ", ".join(f"{name}={value}" for name, value in setting.items())
        if "processes" in setting and "batch_size" in setting:
            return f"{words}: this is the batch of each process, so a step keeps its rows"
        return words

    def uncertainty(self) -> str:
        widest = max(speed_up.ratio.spread for speed_up in self.ways.values())
        fewest = min(speed_up.ratio.count for speed_up in self.ways.values())
        return (
            f"intervals of speed-ups are up to {widest:.2g} wide, from {fewest} rounds or more; steps were eager: "
            "executor=graph works with one process only and may beat several. Starting processes is not part of a step"
        )


def _name(way: Way) -> str:
    return NAMES[way[0]].format(way[1])


def _verb(way: Way) -> str:
    return "are" if way[0] == PROCESSES else "is"
