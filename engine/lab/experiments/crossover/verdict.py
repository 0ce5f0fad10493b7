"""What steps over width × batch say: overhead and speed of every device, where one takes over, where a job stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epochtop.engine.lab.crossings import crossing, faster
from epochtop.engine.lab.experiment import Findings, Row, too_few
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    Fit,
    difference,
    figure,
    fit,
    grouped,
    percent,
    quantity,
    quartiles_apart,
    select,
    values,
)
from epochtop.engine.lab.statistics import with_spread as spread_of
from epochtop.engine.protocol.experiments import Line, Verdict

LIKE = {"resnet": "cnn"}
"""The model of the grid that computes as the job's does, where that is not the mlp or the job's own."""
PLAIN = 0.3
"""What a fit may miss of any point for one overhead and one speed to describe all of them."""


def model(rows: Sequence[Row]) -> Fit | None:
    """`seconds = overhead + MFLOP × cost`, of the medians of one model on one device; None with fewer than two points."""
    points = grouped(rows, ("width", "batch", "mflop"), "seconds")
    works = [float(work) for _, _, work in points if isinstance(work, int | float)]
    if len(set(works)) < 2 or len(works) < len(points):
        return None
    return fit([(1.0, work) for work in works], [told.median for told in points.values()])


class Law:
    """What a step of one model takes on one device, by the work in it."""

    def __init__(self, device: str, name: str, rows: Sequence[Row], fitted: Fit) -> None:
        self.device, self.model, self.rows, self.fit = device, name, rows, fitted
        self.overhead_s, self.mflop_s = fitted.coefficients

    @property
    def gflops(self) -> float | None:
        """Speed, in GFLOP/s; None where no step had enough work to tell."""
        return 1e-3 / self.mflop_s if self.mflop_s else None

    @property
    def knee_mflop(self) -> float | None:
        """The work that takes as long as the overhead."""
        return self.overhead_s / self.mflop_s if self.mflop_s else None

    @property
    def plain(self) -> bool:
        """Whether one overhead and one speed describe all points."""
        return self.fit.worst <= PLAIN

    def evidence(self) -> str:
        """The fit, what it misses, and how far steps stay flat."""
        misses = "misses no point by more than" if self.plain else "does not describe all points: it misses one by"
        return (
            f"{self.model} on {self.device}: a step takes {quantity(self.overhead_s, 's')} + work at "
            f"{quantity(self.gflops, 'GFLOP/s')}, which {misses} {self.fit.worst:.0%}{self._flat()}"
        )

    def _flat(self) -> str:
        """The largest batch of each width up to which a step takes less than twice the overhead."""
        found: dict[float, float] = {}
        points = grouped(self.rows, ("width", "batch"), "seconds")
        for (width, batch), told in points.items():
            if isinstance(width, int) and isinstance(batch, int) and told.median < 2 * self.overhead_s:
                found[width] = max(found.get(width, 0), batch)
        if not found:
            return ""
        said = ", ".join(f"{batch:,} at width {width:,}" for width, batch in sorted(found.items()))
        return f"; mostly overhead up to a batch of {said}"

    def line(self) -> Line:
        """The fitted curve."""
        works = sorted(set(values(self.rows, "mflop")))
        return Line(
            name=f"{self.device}, {self.model}, fitted",
            points=tuple((work, self.overhead_s + work * self.mflop_s) for work in works),
        )


def laws_of(rows: Sequence[Row]) -> list[Law]:
    """A law for every device and model of the grid that has points enough."""
    grid = select(rows, kind="grid")
    found = []
    for device, name in dict.fromkeys((row["device"], row["model"]) for row in grid):
        mine = select(grid, device=device, model=name)
        fitted = model(mine)
        if fitted is not None:
            found.append(Law(str(device), str(name), mine, fitted))
    return found


class _Own:
    """The step of the user's job on one device."""

    def __init__(self, device: str, rows: Sequence[Row], told: Figure, law: Law | None) -> None:
        self.device, self.rows, self.told, self.law = device, rows, told, law
        self.mflop = values(rows, "mflop")[0] if values(rows, "mflop") else 0.0

    @property
    def computing(self) -> float | None:
        """Share of the step that its work would take at the speed of the grid; None where that is not known."""
        if self.law is None or not self.law.mflop_s or not self.mflop:
            return None
        return min(1.0, self.mflop * self.law.mflop_s / self.told.median)

    @property
    def room(self) -> float | None:
        """Times the work at which a step would take twice as long, by the fit; None where that describes no steps."""
        share = self.computing
        return 1 + 1 / share if share and self.law is not None and self.law.plain else None

    def evidence(self) -> str:
        said = f"your job on {self.device}: a step of {quantity(self.mflop, 'MFLOP')} takes {spread_of(self.told)}"
        if self.computing is None or self.law is None:
            return f"{said}; how much of it is computing is not known"
        return (
            f"{said}; at the {quantity(self.law.gflops, 'GFLOP/s')} of the {self.law.model}s its work would take "
            f"{quantity(self.mflop * self.law.mflop_s, 's')}, {percent(self.computing)} of the step"
        )


def conclude(found: Findings) -> Verdict:
    """Where the GPU takes over and where the job stands; without a GPU, overhead and speed of what there is."""
    laws = laws_of(found.rows)
    own = _own(found, laws)
    if not laws and not own:
        return too_few("steps of two sizes or more")
    sides = _sides(own)
    return Verdict(
        finding="; ".join(filter(None, (_stands(own, sides), _grid_finding(found.rows, laws, bool(own))))),
        evidence=(
            *((sides.words(f"your step on {own[0].device}", f"on {own[-1].device}"),) if sides is not None else ()),
            *(mine.evidence() for mine in own),
            *(law.evidence() for law in laws),
            *_lines_of_takeover(found.rows),
            *_everywhere_from(found.rows),
            *_by_the_fits(laws),
            *_limits(found.rows),
        ),
        next_step=_next_step(own, sides),
        uncertainty=_uncertainty(found.rows),
        setting={"device": own[0].device} if sides is not None and _cpu_wins(sides) else {},
        lines=(*_lines_upright(found.rows), *(law.line() for law in laws if law.plain)),
    )


def _own(found: Findings, laws: Sequence[Law]) -> list[_Own]:
    """By device, the CPU first."""
    kind = "mlp" if found.spec.task else found.spec.model
    name = LIKE.get(kind, kind if kind == "cnn" else "mlp")
    told = grouped(select(found.rows, kind="job"), ("device",), "seconds")
    mine = []
    for (device,), took in told.items():
        law = next((law for law in laws if (law.device, law.model) == (device, name)), None)
        mine.append(_Own(str(device), select(found.rows, kind="job", device=device), took, law))
    return sorted(mine, key=lambda one: one.device != "cpu")


def _sides(own: Sequence[_Own]) -> Difference | None:
    """The job's step on the CPU over that on another device; None where there are not both."""
    if len(own) < 2 or own[0].device != "cpu":
        return None
    return difference(own[0].rows, own[-1].rows)


def _cpu_wins(sides: Difference) -> bool:
    return sides.distinct and sides.ratio.median < 1


def _stands(own: Sequence[_Own], sides: Difference | None) -> str:
    """Where the job belongs, or, on one device, what its step is made of."""
    if not own:
        return ""
    here = own[0]
    if sides is None:
        said = f"your job's step takes {quantity(here.told.median, 's')} on {here.device}"
        share = here.computing
        if share is None:
            return said
        what = "computing" if share >= 0.5 else "overhead"
        return f"{said} and is mostly {what}: its work takes {percent(share)} of it"
    there, ratio = own[-1], sides.ratio.median
    times = f"{quantity(here.told.median, 's')} on the CPU and {quantity(there.told.median, 's')} on {there.device}"
    if sides.ratio.count <= 2:
        return f"your job was measured too seldom on both to tell them apart: a step takes {times}"
    if not sides.distinct:
        return f"for your job it makes no difference: a step takes {times}"
    if ratio < 1:
        return f"use the CPU for this one: a step of your job takes {times}, {quantity(1 / ratio)} × as long"
    return f"your job belongs on {there.device}: a step takes {times}, {quantity(ratio)} × faster"


def _grid_finding(rows: Sequence[Row], laws: Sequence[Law], short: bool) -> str:
    """The line where another device takes over, or where steps stop to be overhead."""
    over = _takeovers(rows)
    if over:
        return "; ".join(f"{name}: {said}" for name, said in list(over.items())[: 1 if short else None])
    flat = [
        f"the {law.model} on {law.device} below {quantity(law.knee_mflop, 'MFLOP')}"
        for law in laws
        if law.knee_mflop and law.plain
    ]
    return f"steps are mostly overhead for {' and '.join(flat)}" if flat else ""


# --- where another device takes over -------------------------------------------------------------------------------


def _others(rows: Sequence[Row]) -> list[Any]:
    """Devices besides the CPU that the grid was measured on."""
    return [device for device in dict.fromkeys(row["device"] for row in select(rows, kind="grid")) if device != "cpu"]


def _takeovers(rows: Sequence[Row]) -> dict[str, str]:
    """By model: the width from which on another device is faster than the CPU, at every batch."""
    said: dict[str, str] = {}
    for device in _others(rows):
        for name in dict.fromkeys(row["model"] for row in select(rows, kind="grid", device=device)):
            parts = []
            for batch in sorted(set(values(select(rows, kind="grid", model=name, device=device), "batch"))):
                point = {"kind": "grid", "model": name, "batch": int(batch)}
                told = crossing(select(rows, **point, device="cpu"), select(rows, **point, device=device), "width")
                if told is not None:
                    parts.append(f"{_since(told.since, told.everywhere)} at batch {batch:,.0f}")
            if parts:
                said[str(name)] = f"{device} takes over from {', '.join(parts)}"
    return said


def _since(since: float | None, everywhere: bool) -> str:
    if since is None:
        return "no width"
    return f"width {since:,.0f}{' (the smallest)' if everywhere else ''}"


def _lines_of_takeover(rows: Sequence[Row]) -> list[str]:
    return [f"{name}: {said}" for name, said in _takeovers(rows).items()]


def takeover_mflop(rows: Sequence[Row], device: str, name: str) -> float | None:
    """The least work measured from which on `device` is faster than the CPU at every width and batch of a model.

    None where there is none, and where it is faster from the least work on: then it has not been seen to take over.
    """
    grid = select(rows, kind="grid", model=name)
    won: dict[float, bool] = {}
    for width, batch, work in grouped(select(grid, device=device), ("width", "batch", "mflop"), "seconds"):
        cpu, other = (select(grid, device=side, width=width, batch=batch) for side in ("cpu", device))
        told = difference(cpu, other)
        if told is not None and isinstance(work, int | float):
            won[work] = won.get(work, True) and faster(told)
    lost = max((work for work, wins in won.items() if not wins), default=None)
    return None if lost is None else min((work for work in won if work > lost), default=None)


def _works_of_takeover(rows: Sequence[Row]) -> list[tuple[Any, Any, float]]:
    """Device, model and work of each that has been seen to take over."""
    pairs = [(device, row["model"]) for device in _others(rows) for row in select(rows, kind="grid", device=device)]
    works = ((*pair, takeover_mflop(rows, *map(str, pair))) for pair in dict.fromkeys(pairs))
    return [(device, name, work) for device, name, work in works if work is not None]


def _everywhere_from(rows: Sequence[Row]) -> list[str]:
    return [
        f"{name}: at any width and batch measured {device} is faster from {quantity(work, 'MFLOP')} a step on"
        for device, name, work in _works_of_takeover(rows)
    ]


def _lines_upright(rows: Sequence[Row]) -> list[Line]:
    """A line at the work from which on another device is faster, from the shortest to the longest step."""
    times = [told.median for told in grouped(rows, ("kind", "device", "model", "mflop"), "seconds").values()]
    return [
        Line(name=f"{device} takes over ({name})", points=((work, min(times)), (work, max(times))))
        for device, name, work in _works_of_takeover(rows)
    ]


def _by_the_fits(laws: Sequence[Law]) -> list[str]:
    """Where the fitted lines of the CPU and of another device cross."""
    said = []
    for law in laws:
        cpu = next((other for other in laws if (other.device, other.model) == ("cpu", law.model)), None)
        if law.device == "cpu" or cpu is None or not (cpu.plain and law.plain):
            continue
        crossed = crossing_mflop(cpu, law)
        where = f"cross at {quantity(crossed, 'MFLOP')} a step" if crossed is not None else "do not cross"
        said.append(f"{law.model}: the fitted lines of the CPU and {law.device} {where}")
    return said


def crossing_mflop(cpu: Law, other: Law) -> float | None:
    """The work from which on `other` is faster, by the fits; None where it is from the beginning, or never."""
    more_s, saved_s = other.overhead_s - cpu.overhead_s, cpu.mflop_s - other.mflop_s
    return more_s / saved_s if more_s > 0 and saved_s > 0 else None


# --- words -------------------------------------------------------------------------------------------------------


def _limits(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row['model']} on {row['device']}: width {row['width']} at batch {row['batch']} and more work was left out, "
        + ("for the time it takes" if row["why"] == "time" else f"since it could not be done: {row['why']}")
        for row in select(rows, kind="limit")
    ]


def _next_step(own: Sequence[_Own], sides: Difference | None) -> str:
    if not own:
        return "let it run to its end, to see where your job stands"
    if sides is not None and sides.distinct:
        return (
            "run it with device=cpu; a larger batch or a wider model is what a GPU is for"
            if _cpu_wins(sides)
            else f"leave it on {own[-1].device}: `device` auto chooses it"
        )
    if sides is not None:
        return "choose either; the one that is otherwise idle is as good"
    share = own[0].computing
    if share is None:
        return "`epochtop lab anatomy` takes the step apart"
    if share < 0.5:
        room = own[0].room
        said = f": by the fit {quantity(room)} × the work would take twice the time" if room is not None else ""
        return (
            f"larger batches or a wider model cost little here{said}; `epochtop lab executors` measures how much overhead "
            "executor=graph takes away"
        )
    return "less work in a step is what helps, or a faster arithmetic: `epochtop lab matmul` shows which are fast here"


def _uncertainty(rows: Sequence[Row]) -> str:
    points = grouped(rows, ("kind", "device", "model", "width", "batch"), "seconds").values()
    rounds = figure([float(told.count) for told in points]).median
    return (
        f"{quartiles_apart('times of one point', points)}, in {rounds:.0f} round{'s' * (rounds != 1)}; speed grows with size, so one overhead and one speed describe steps only roughly. Steps "
        "are eager ones: executor=graph has less overhead"
    )
