"""The verdict of `transfer`: latency and bandwidth of each route, when pinning pays, and the cost of new memory.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epochtop.engine.lab.crossings import Crossing, compared, crossing
from epochtop.engine.lab.differences import Difference, difference
from epochtop.engine.lab.experiment import Findings, too_few
from epochtop.engine.lab.experiments.transfer.schema import CopyTime, PinTime
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, Fit, fit, grouped, quartiles_apart, rounds_of, select
from epochtop.engine.protocol.experiments import Line, Verdict
from epochtop.engine.protocol.quantities import format_quantity

PLAIN = 0.25
"""Largest relative residual with which one latency and one bandwidth describe all sizes."""


def model(rows: Sequence[CopyTime]) -> Fit | None:
    """`seconds = latency + bytes × cost of a byte`, from the medians of one route; None below two sizes."""
    points = _points(rows)
    if len(points) < 2:
        return None
    return fit([(1.0, size) for size in points], [time.median for time in points.values()])


def _points(rows: Sequence[CopyTime] | Sequence[PinTime]) -> dict[float, Figure]:
    """The time of each size."""
    times = grouped(rows, ("bytes",), "seconds")
    return {float(size): time for (size,), time in sorted(times.items()) if isinstance(size, int | float)}


class RouteCosts:
    """The latency in seconds and the bandwidth in bytes per second of one route."""

    def __init__(self, direction: str, way: str, rows: Sequence[CopyTime], fitted: Fit) -> None:
        self.direction, self.way, self.rows = direction, way, rows
        self.fit, self.points = fitted, _points(rows)
        self.latency_s, self._byte_s = fitted.coefficients

    @property
    def name(self) -> str:
        """`to device, pinned`, as in pictures."""
        return f"{self.direction}, {self.way}"

    @property
    def bandwidth(self) -> float | None:
        """Bytes per second; None if sizes were too small."""
        return 1 / self._byte_s if self._byte_s else None

    @property
    def half_bytes(self) -> float:
        """The size whose bytes take as long as the latency."""
        return self.latency_s / self._byte_s if self._byte_s else 0.0

    @property
    def plain(self) -> bool:
        """Whether one latency and one bandwidth describe all sizes."""
        return self.fit.worst <= PLAIN

    def _rate(self, size: float) -> float:
        return size / self.points[size].median

    def words(self) -> str:
        """The fitted costs if they describe every size, else those of the smallest and the largest size."""
        if self.plain:
            return f"{format_quantity(self.latency_s, 's')} plus its bytes at {format_quantity(self.bandwidth, 'B/s')}"
        smallest, largest = min(self.points), max(self.points)
        return (
            f"{format_quantity(self.points[smallest].median, 's')} for {format_quantity(smallest, 'B')} and runs at "
            f"{format_quantity(self._rate(largest), 'B/s')} for {format_quantity(largest, 'B')}"
        )

    def evidence(self) -> str:
        """The fit, its residual, and the rate at the largest size."""
        largest = max(self.points)
        time = self.points[largest]
        best = max(self.points, key=self._rate)
        fitted = (
            f"{self.name}: fitted {format_quantity(self.latency_s, 's')} + bytes at {format_quantity(self.bandwidth, 'B/s')}, within "
            f"{self.fit.worst:.0%} at every size; measured {format_quantity(self._rate(largest), 'B/s')} "
            f"({format_quantity(largest / time.high, 'B/s')} … {format_quantity(largest / time.low, 'B/s')}) at {format_quantity(largest, 'B')}"
        )
        if self.plain:
            return f"{fitted}; copies below {format_quantity(self.half_bytes, 'B')} are mostly latency"
        if best == largest:
            return fitted
        return (
            f"{fitted}; fastest at {format_quantity(best, 'B')} with {format_quantity(self._rate(best), 'B/s')}: no single bandwidth fits "
            "all sizes, as when small ones stay in the processor's caches"
        )

    def line(self) -> Line:
        """The fitted curve."""
        points = tuple((size, self.latency_s + size * self._byte_s) for size in self.points)
        return Line(name=f"{self.name}, fitted", points=points)


Routes = Mapping[tuple[str, str], RouteCosts]
"""By direction and way."""


def routes_of(rows: Sequence[Measurement]) -> dict[tuple[str, str], RouteCosts]:
    """The costs of every route with two sizes or more."""
    routes: dict[tuple[str, str], RouteCosts] = {}
    copies = of_kind(rows, CopyTime)
    for direction, way in dict.fromkeys((row.direction, row.way) for row in copies):
        on_route = select(copies, direction=direction, way=way)
        fitted = model(on_route)
        if fitted is not None:
            routes[direction, way] = RouteCosts(direction, way, on_route, fitted)
    return routes


def conclude(findings: Findings) -> Verdict:
    """The costs of each route, and whether pinning, or reusing memory, pays."""
    routes = routes_of(findings.rows)
    if not routes:
        return too_few("copies of two sizes or more")
    device = next((row.device for row in of_kind(findings.rows, CopyTime) if row.direction != "in host"), None)
    answer = _within_host(routes) if device is None else _to_device(findings.rows, routes, device)
    return Verdict(
        finding=answer.finding,
        evidence=(*(route.evidence() for route in routes.values()), *answer.evidence),
        next_step=answer.next_step,
        uncertainty=_uncertainty(routes),
        lines=tuple(route.line() for route in routes.values() if route.plain),
    )


@dataclass(frozen=True)
class _Answer:
    """The parts of the verdict that depend on the kind of machine."""

    finding: str
    evidence: Sequence[str]
    next_step: str


# --- within the host -----------------------------------------------------------------------------------------------


def _within_host(routes: Routes) -> _Answer:
    reused, fresh = routes.get(("in host", "reused")), routes.get(("in host", "fresh"))
    main = reused or next(iter(routes.values()))
    finding = f"without a device, a copy within host memory takes {main.words()}"
    if reused is None or fresh is None:
        return _Answer(finding, (), "run the experiment to its end: one kind of copy was not measured")
    sides = compared(fresh.rows, reused.rows, "bytes")
    crossed = crossing(fresh.rows, reused.rows, "bytes")
    if crossed is None or crossed.since is None:
        same = f"; {words}" if (words := next(reversed(_end_words(sides)), "")) else ""
        return _Answer(
            finding + same, _end_words(sides), "change nothing: copies into reused tensors are not faster here"
        )
    size, since = format_quantity(max(sides), "B"), format_quantity(crossed.since, "B")
    return _Answer(
        f"{finding}; into a new tensor of {size} it takes {sides[max(sides)].amount()}, and longer from {since}",
        _end_words(sides),
        f"copy into reused tensors (`copy_`, `out=`) from {since}: new memory has to be mapped and cleared first",
    )


def _end_words(sides: Mapping[float, Difference]) -> list[str]:
    """Sentences on the smallest and the largest size."""
    ends = dict.fromkeys((min(sides), max(sides))) if sides else {}
    return [
        sides[size].words(f"a copy into a new tensor of {format_quantity(size, 'B')}", "into a reused one")
        for size in ends
    ]


# --- to a device and back ------------------------------------------------------------------------------------------


def _to_device(rows: Sequence[Measurement], routes: Routes, device: str) -> _Answer:
    routes_there = [routes[key] for key in routes if key[0] == "to device"] or list(routes.values())
    ways = {route.way: route for route in routes_there}
    main = ways.get("pageable", routes_there[0])
    finding = f"a copy {main.direction} ({device}, {main.way}) takes {main.words()}"
    fast = ways.get("non-blocking") or ways.get("pinned")
    if fast is None or fast is main or "pageable" not in ways:
        return _Answer(finding, (), "move rows once and keep them on the device (placement=device) if they fit")
    crossed = crossing(main.rows, fast.rows, "bytes")
    anew = crossing(main.rows, ways["pinned anew"].rows, "bytes") if "pinned anew" in ways else None
    pinned = _crossing_words(crossed, "memory that is already pinned", "pageable memory")
    pinning = (
        [_crossing_words(anew, "pinning and copying each batch", "copying it from pageable memory")] if anew else []
    )
    return _Answer(
        f"{finding}, from pinned memory {fast.words()}; {pinned}",
        (*_pinned_words(routes), *pinning, *_payback(rows, main, fast)),
        _advice(crossed, anew, fast),
    )


def _crossing_words(crossed: Crossing | None, subject: str, other: str) -> str:
    if crossed is None:
        return f"{subject} and {other} have no size in common"
    if crossed.since is None:
        return f"{subject} is never faster than {other}, up to {format_quantity(crossed.largest, 'B')}"
    if crossed.below is None:
        return f"{subject} is faster than {other} at every size"
    return f"{subject} is faster than {other} from {format_quantity(crossed.since, 'B')}, not at {format_quantity(crossed.below, 'B')}"


def _pinned_words(routes: Routes) -> list[str]:
    """Pinned against pageable memory in both directions, at the smallest and the largest size."""
    sentences = []
    for direction in ("to device", "to host"):
        pageable = routes.get((direction, "pageable"))
        for way in ("pinned", "non-blocking"):
            pinned = routes.get((direction, way))
            if pageable is None or pinned is None:
                continue
            sides = compared(pinned.rows, pageable.rows, "bytes")
            sentences += [
                sides[size].words(f"{format_quantity(size, 'B')} {direction}, {way},", "pageable")
                for size in dict.fromkeys((min(sides), max(sides)) if sides else ())
            ]
    return sentences


def _payback(rows: Sequence[Measurement], pageable: RouteCosts, fast: RouteCosts) -> list[str]:
    """Copies after which pinning memory in place has paid off, at the largest size of all three."""
    pinned = _points(of_kind(rows, PinTime))
    common = sorted(set(pinned) & set(pageable.points) & set(fast.points))
    if not common:
        return []
    size = common[-1]
    cost = f"pinning {format_quantity(size, 'B')} takes {format_quantity(pinned[size].median, 's')}"
    sides = difference(select(pageable.rows, bytes=size), select(fast.rows, bytes=size))
    saved_s = pageable.points[size].median - fast.points[size].median
    if sides is None or not sides.slower or saved_s <= 0:
        return [f"{cost}, and copies from it are not faster"]
    return [f"{cost}, which pays off after {max(1, round(pinned[size].median / saved_s)):,} copies from it"]


def _advice(crossed: Crossing | None, anew: Crossing | None, fast: RouteCosts) -> str:
    small = (
        f"batches below {format_quantity(fast.half_bytes, 'B')} always cost their latency, so move all rows once and keep them on "
        "the device (placement=device)"
    )
    if crossed is None or crossed.since is None:
        return f"do not pin memory: it gains nothing here; {small}"
    if anew is not None and anew.since is None:
        return f"pin buffers once and reuse them, because pinning every batch is not faster here; {small}"
    since = max(crossed.since, anew.since or 0.0) if anew is not None else crossed.since
    return f"pin what is copied in pieces of {format_quantity(since, 'B')} or more (DataLoader's pin_memory); {small}"


def _uncertainty(routes: Routes) -> str:
    points = [time for route in routes.values() for time in route.points.values()]
    return (
        f"{quartiles_apart('times of one size', points)}, in {rounds_of(points)}; the same memory is copied again and again, "
        "so small copies find it in the processor's caches, unlike many rows in training"
    )
