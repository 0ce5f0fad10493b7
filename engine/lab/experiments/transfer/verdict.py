"""What copies say of a machine: latency and bandwidth of every way, when pinning pays, what fresh memory costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epochtop.engine.lab.crossings import Crossing, compared, crossing
from epochtop.engine.lab.experiment import Findings, Row, too_few
from epochtop.engine.lab.statistics import (
    Figure,
    Fit,
    difference,
    figure,
    fit,
    grouped,
    quantity,
    quartiles_apart,
    select,
    values,
)
from epochtop.engine.protocol.experiments import Line, Verdict

PLAIN = 0.25
"""What a fit may miss of any size for one latency and one bandwidth to describe all of them."""


def model(rows: Sequence[Row]) -> Fit | None:
    """`seconds = latency + bytes × cost of a byte`, of the medians of copies of one way; None with fewer than two sizes."""
    points = _points(rows)
    if len(points) < 2:
        return None
    return fit([(1.0, size) for size in points], [told.median for told in points.values()])


def _points(rows: Sequence[Row]) -> dict[float, Figure]:
    found = grouped((row for row in rows if values([row], "bytes")), ("bytes",), "seconds")
    return {float(size): told for (size,), told in sorted(found.items()) if isinstance(size, int | float)}


class Route:
    """One way to copy: its latency in seconds and its bandwidth in bytes a second."""

    def __init__(self, direction: str, way: str, rows: Sequence[Row], fitted: Fit) -> None:
        self.direction, self.way, self.rows = direction, way, rows
        self.fit, self.points = fitted, _points(rows)
        self.latency_s, self._byte_s = fitted.coefficients

    @property
    def name(self) -> str:
        """As pictures call it."""
        return f"{self.direction}, {self.way}"

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second; None where sizes were too small to tell."""
        return 1 / self._byte_s if self._byte_s else None

    @property
    def half_bytes(self) -> float:
        """The size that takes as long to move as the latency."""
        return self.latency_s / self._byte_s if self._byte_s else 0.0

    @property
    def plain(self) -> bool:
        """Whether one latency and one bandwidth describe all sizes."""
        return self.fit.worst <= PLAIN

    def costs(self) -> str:
        """In words: the fitted ones where they describe every size, else those of the smallest and the largest."""
        if self.plain:
            return f"{quantity(self.latency_s, 's')} and then {quantity(self.bandwidth, 'B/s')}"
        smallest, largest = min(self.points), max(self.points)
        return (
            f"{quantity(self.points[smallest].median, 's')} for {quantity(smallest, 'B')} and "
            f"{quantity(largest / self.points[largest].median, 'B/s')} at {quantity(largest, 'B')}"
        )

    def evidence(self) -> str:
        """The fit, what it misses, and what was measured at the largest size."""
        largest = max(self.points)
        told = self.points[largest]
        best = max(self.points, key=lambda size: size / self.points[size].median)
        fitted = (
            f"{self.name}: fitted {quantity(self.latency_s, 's')} + bytes at {quantity(self.bandwidth, 'B/s')}, which "
            f"misses no size by more than {self.fit.worst:.0%}; measured {quantity(largest / told.median, 'B/s')} "
            f"({quantity(largest / told.high, 'B/s')} … {quantity(largest / told.low, 'B/s')}) at {quantity(largest, 'B')}"
        )
        if self.plain:
            return f"{fitted}; copies below {quantity(self.half_bytes, 'B')} are mostly latency"
        if best == largest:
            return fitted
        return (
            f"{fitted}; fastest at {quantity(best, 'B')} with {quantity(best / self.points[best].median, 'B/s')}: one "
            "bandwidth does not describe all sizes, as where small ones stay in the processor's caches"
        )

    def line(self) -> Line:
        """The fitted curve."""
        points = [(size, self.latency_s + size * self._byte_s) for size in self.points]
        return Line(name=f"{self.name}, fitted", points=tuple(points))


def routes_of(rows: Sequence[Row]) -> dict[tuple[Any, Any], Route]:
    """A route for every direction and way with two sizes or more."""
    found: dict[tuple[Any, Any], Route] = {}
    copied = select(rows, kind="copy")
    for direction, way in dict.fromkeys((row["direction"], row["way"]) for row in copied):
        mine = select(copied, direction=direction, way=way)
        fitted = model(mine)
        if fitted is not None:
            found[direction, way] = Route(str(direction), str(way), mine, fitted)
    return found


def conclude(found: Findings) -> Verdict:
    """Costs of the ways there are, and whether pinning, or memory that is used again, pays."""
    routes = routes_of(found.rows)
    if not routes:
        return too_few("copies of two sizes or more")
    device = next((name for (direction, _), name in _devices(found.rows).items() if direction != "in host"), None)
    said = _within_host(routes) if device is None else _pinning(found.rows, routes, device)
    return Verdict(
        finding=said.finding,
        evidence=(*(route.evidence() for route in routes.values()), *said.evidence),
        next_step=said.next_step,
        uncertainty=_uncertainty(routes),
        lines=tuple(route.line() for route in routes.values() if route.plain),
    )


def _devices(rows: Sequence[Row]) -> dict[tuple[Any, Any], str]:
    return {(row["direction"], row["way"]): str(row["device"]) for row in select(rows, kind="copy")}


class _Said:
    def __init__(self, finding: str, evidence: Sequence[str], next_step: str) -> None:
        self.finding, self.evidence, self.next_step = finding, evidence, next_step


# --- within the host -----------------------------------------------------------------------------------------------


def _within_host(routes: dict[tuple[Any, Any], Route]) -> _Said:
    reused, fresh = routes.get(("in host", "reused")), routes.get(("in host", "fresh"))
    main = reused or next(iter(routes.values()))
    finding = f"without a device to copy to, a copy within host memory takes {main.costs()}"
    if reused is None or fresh is None:
        return _Said(finding, (), "let it run to its end: one way to copy was not measured")
    sides = compared(fresh.rows, reused.rows, "bytes")
    told = crossing(fresh.rows, reused.rows, "bytes")
    if told is None or told.since is None:
        none = "; that fresh tensors take longer than one that is used again could not be seen above the spread"
        return _Said(
            finding + none, _each(sides), "nothing to change: no way to copy was seen to be faster than another"
        )
    largest = sides[max(sides)].ratio
    return _Said(
        f"{finding}; into a fresh tensor it takes {quantity(largest.median)} × as long at {quantity(max(sides), 'B')}, and "
        f"longer from {quantity(told.since, 'B')} on",
        _each(sides),
        f"copy into tensors that are used again (`copy_`, `out=`) where they have {quantity(told.since, 'B')} or more: "
        "memory that is asked for anew has to be mapped and cleared first",
    )


def _each(sides: dict[float, Any]) -> tuple[str, ...]:
    """The smallest and the largest comparison."""
    ends = dict.fromkeys((min(sides), max(sides))) if sides else {}
    return tuple(
        sides[size].words(f"a fresh tensor of {quantity(size, 'B')}", "one that is used again") for size in ends
    )


# --- to a device and back ------------------------------------------------------------------------------------------


def _pinning(rows: Sequence[Row], routes: dict[tuple[Any, Any], Route], device: str) -> _Said:
    there = [routes[key] for key in routes if key[0] == "to device"] or list(routes.values())
    ways = {route.way: route for route in there}
    main = ways.get("pageable", there[0])
    finding = f"a copy {main.direction} ({device}, {main.way}) takes {main.costs()}"
    fast = ways.get("non-blocking") or ways.get("pinned")
    if fast is None or fast is main or "pageable" not in ways:
        return _Said(finding, (), "move rows once and keep them on the device (placement=device) where they fit")
    told = crossing(main.rows, fast.rows, "bytes")
    anew = crossing(main.rows, ways["pinned anew"].rows, "bytes") if "pinned anew" in ways else None
    return _Said(
        f"{finding}, from pinned memory {fast.costs()}; {_when(told, 'memory that is pinned already', 'pageable memory')}",
        (
            *_pinned_or_not(routes),
            *((_when(anew, "pinning each batch and copying it", "copying it from pageable memory"),) if anew else ()),
            *_payback(rows, main, fast),
        ),
        _advice(told, anew, fast),
    )


def _when(told: Crossing | None, what: str, other: str) -> str:
    if told is None:
        return f"{what} and {other} have no size in common"
    if told.since is None:
        return f"{what} is never faster than {other}, up to {quantity(told.largest, 'B')}"
    if told.below is None:
        return f"{what} is faster than {other} at every size"
    return f"{what} is faster than {other} from {quantity(told.since, 'B')} on, not at {quantity(told.below, 'B')}"


def _pinned_or_not(routes: dict[tuple[Any, Any], Route]) -> list[str]:
    """Of both directions, at the smallest and the largest size."""
    said = []
    for direction in ("to device", "to host"):
        pageable = routes.get((direction, "pageable"))
        for way in ("pinned", "non-blocking"):
            other = routes.get((direction, way))
            if pageable is None or other is None:
                continue
            sides = compared(other.rows, pageable.rows, "bytes")
            said += [
                sides[size].words(f"{quantity(size, 'B')} {direction}, {way},", "pageable")
                for size in dict.fromkeys((min(sides), max(sides)) if sides else ())
            ]
    return said


def _payback(rows: Sequence[Row], pageable: Route, fast: Route) -> list[str]:
    """Copies after which pinning memory where it lies has paid for itself, at the largest size of all three."""
    pinned = _points(select(rows, kind="pin"))
    common = sorted(set(pinned) & set(pageable.points) & set(fast.points))
    if not common:
        return []
    size = common[-1]
    said = f"pinning {quantity(size, 'B')} takes {quantity(pinned[size].median, 's')}"
    sides = difference(select(pageable.rows, bytes=size), select(fast.rows, bytes=size))
    saved_s = pageable.points[size].median - fast.points[size].median
    if sides is None or not sides.distinct or saved_s <= 0:
        return [f"{said}, and copies from it are not faster"]
    return [f"{said}, which is paid back after {max(1, round(pinned[size].median / saved_s)):,} copies from it"]


def _advice(told: Crossing | None, anew: Crossing | None, fast: Route) -> str:
    small = (
        f"batches below {quantity(fast.half_bytes, 'B')} cost their latency whatever is done: move all rows once and keep "
        "them on the device (placement=device)"
    )
    if told is None or told.since is None:
        return f"leave pinning alone, it brings nothing here; {small}"
    if anew is not None and anew.since is None:
        return f"pin buffers once and use them again; pinning every batch anew is not faster here. And {small}"
    since = max(told.since, anew.since or 0.0) if anew is not None else told.since
    return f"pin what is copied in pieces of {quantity(since, 'B')} or more (DataLoader's pin_memory); {small}"


def _uncertainty(routes: dict[tuple[Any, Any], Route]) -> str:
    told = [point for route in routes.values() for point in route.points.values()]
    rounds = figure([float(point.count) for point in told]).median
    return (
        f"{quartiles_apart('times of one size', told)}, in {rounds:.0f} round{'s' * (rounds != 1)}; the same memory is copied "
        "again and again, so small copies find it in the processor's caches, which rows of a training may not be"
    )
