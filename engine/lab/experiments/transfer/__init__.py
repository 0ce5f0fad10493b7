"""What a copy costs, by size: to a device and back, from ordinary and from pinned memory, waited for or not.

A copy takes `latency + bytes / bandwidth`; both are fitted here. Where there is no device, copies within host memory are
measured, and called that: into a tensor that is used again, and into a fresh one each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Picture, Row
from epochtop.engine.lab.experiments.transfer.verdict import conclude
from epochtop.engine.lab.instruments.sampling import Case, interleave
from epochtop.engine.lab.instruments.sizes import grow, longest_s
from epochtop.engine.lab.statistics import quantity, values
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.spec import declared

if TYPE_CHECKING:
    import torch

GROWTH = 4
SMALLEST_BYTES, LARGEST_MIB = 1 << 10, 1 << 10
ROUNDS = 5
MAKING = 0.25
"""Of the time to write to memory for the first time, which may be that much longer than a copy."""
PINNED_AT_ONCE = 20
"""Times that memory is pinned in one measurement."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far sizes go."""

    largest_mib: Annotated[
        int, declared("largest copy, if time and memory allow", "experiment", "MiB", ge=1, le=1 << 16)
    ] = LARGEST_MIB


def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` copy and pin (memory that is pinned where it lies), and limit (where sizes ended, and why)."""
    assert isinstance(bench.fields, Fields)
    device = bench.devices[-1]
    _say_what_is_missing(bench, device)
    buffers = Buffers(device)
    routes = _routes(buffers)
    most_s = longest_s(0.85 * bench.left_s() / len(routes), GROWTH, ROUNDS)
    cases: list[Case] = []
    for labels, make in routes:
        bench.say("finding sizes for " + " ".join(str(labels[name]) for name in ("direction", "way") if name in labels))
        sizes = _sizes(bench.fields.largest_mib)
        fitting = [size for size in sizes if _fits(device, size)]
        labeled = [(size, partial(_case, {**labels, "device": device, "bytes": size}, make, size)) for size in fitting]
        grown = grow(bench, labeled, most_s, MAKING)
        cases += grown.cases
        if len(grown.cases) < len(sizes):
            yield {
                **labels,
                "kind": "limit",
                "device": device,
                "bytes": sizes[len(grown.cases)],
                "why": "time" if grown.expected_s else str(grown.error or "memory").partition("\n")[0][:200],
            }
    bench.say("copying")
    for row in interleave(bench, cases, rounds=ROUNDS):
        yield {**row, "rate": values([row], "bytes")[0] / values([row], "seconds")[0]}


def _say_what_is_missing(bench: ExperimentContext, device: str) -> None:
    if device == "cpu":
        bench.cannot_see.append(
            "what a copy to a device and back takes, and when pinned memory pays: there was no device, and all copies that "
            "were measured are within host memory"
        )
    elif not device.startswith("cuda"):
        bench.cannot_see.append(f"pinned memory: torch pins for CUDA only, not for {device}")


def _sizes(largest_mib: int) -> list[int]:
    sizes = [SMALLEST_BYTES]
    while sizes[-1] * GROWTH <= largest_mib << 20:
        sizes.append(sizes[-1] * GROWTH)
    return sizes


def _fits(device: str, size: int) -> bool:
    """Whether buffers of this size and all smaller ones need less than half of what is free."""
    import torch

    from epochtop.engine.device.select import free_bytes

    buffers = {"cpu": 4, device: 2} if device != "cpu" else {"cpu": 4}
    free = {name: free_bytes(torch.device(name), exact=True) for name in buffers}
    return all(free[name] is None or many * size < (free[name] or 0) / 2 for name, many in buffers.items())


def _case(labels: Row, make: Callable[[int], tuple[Callable[[int], float], int]], size: int) -> Case:
    run, most = make(size)
    return Case(labels, run, most)


# --- ways --------------------------------------------------------------------------------------------------------

MANY = 100_000


class Buffers:
    """Memory to copy from and to, one a size and place; all of it has been written to, so that pages are there."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = torch.device(device)
        self.host = cache(lambda size: torch.ones(size, dtype=torch.uint8))
        self.other = cache(lambda size: torch.ones(size, dtype=torch.uint8))
        self.pinned = cache(lambda size: torch.ones(size, dtype=torch.uint8).pin_memory())
        self.there = cache(lambda size: torch.ones(size, dtype=torch.uint8, device=self.device))

    def repeated(self, work: Callable[[], object]) -> tuple[Callable[[int], float], int]:
        """What a case runs, and how often at most."""
        from epochtop.engine.lab.instruments.clocks import repeated

        return repeated(self.device, work), MANY


Make = Callable[[int], tuple[Callable[[int], float], int]]


def _routes(buffers: Buffers) -> list[tuple[dict[str, Cell], Make]]:
    """The labels of every way to copy that this machine has, and what makes it for a size."""
    if buffers.device.type == "cpu":
        ways: list[tuple[str, str, Make]] = [
            ("in host", "reused", partial(_into, buffers, buffers.other, buffers.host, False)),
            ("in host", "fresh", partial(_fresh, buffers)),
        ]
        return [({"kind": "copy", "direction": to, "way": way}, make) for to, way, make in ways]
    there, host = buffers.there, buffers.host
    ways = [
        ("to device", "pageable", partial(_into, buffers, there, host, False)),
        ("to host", "pageable", partial(_into, buffers, host, there, False)),
    ]
    if buffers.device.type != "cuda":
        return [({"kind": "copy", "direction": to, "way": way}, make) for to, way, make in ways]
    pinned = buffers.pinned
    ways += [
        ("to device", "pinned", partial(_into, buffers, there, pinned, False)),
        ("to device", "non-blocking", partial(_into, buffers, there, pinned, True)),
        ("to device", "pinned anew", partial(_pinned_anew, buffers)),
        ("to host", "pinned", partial(_into, buffers, pinned, there, False)),
        ("to host", "non-blocking", partial(_into, buffers, pinned, there, True)),
    ]
    routes: list[tuple[dict[str, Cell], Make]] = [
        ({"kind": "copy", "direction": to, "way": way}, make) for to, way, make in ways
    ]
    return [*routes, ({"kind": "pin", "way": "pinning"}, partial(_pinning, buffers))]


Place = Callable[[int], "torch.Tensor"]


def _into(
    buffers: Buffers, target: Place, source: Place, non_blocking: bool, size: int
) -> tuple[Callable[[int], float], int]:
    to, what = target(size), source(size)
    return buffers.repeated(lambda: to.copy_(what, non_blocking=non_blocking))


def _fresh(buffers: Buffers, size: int) -> tuple[Callable[[int], float], int]:
    """Into memory that is asked for each time, and given back."""
    what = buffers.host(size)
    return buffers.repeated(lambda: what.clone())


def _pinned_anew(buffers: Buffers, size: int) -> tuple[Callable[[int], float], int]:
    """As a DataLoader with `pin_memory` does it: into pinned memory, which torch keeps for the next time, and from there."""
    to, what = buffers.there(size), buffers.host(size)
    return buffers.repeated(lambda: to.copy_(what.pin_memory(), non_blocking=True))


def _pinning(_: Buffers, size: int) -> tuple[Callable[[int], float], int]:
    """Memory is pinned where it lies, which is what pinning costs without any copy; it is unpinned out of time."""
    import torch

    # of its own: memory of other cases must stay pageable
    memory = torch.ones(size, dtype=torch.uint8)
    runtime = torch.cuda.cudart()

    def run(times: int) -> float:
        total_s = 0.0
        for _ in range(times):
            begun = perf_counter()
            failed = int(runtime.cudaHostRegister(memory.data_ptr(), size, 0))
            total_s += perf_counter() - begun
            if failed:
                raise RuntimeError(f"CUDA cannot pin {quantity(size, 'B')} (error {failed})")
            runtime.cudaHostUnregister(memory.data_ptr())
        return total_s

    return run, PINNED_AT_ONCE


EXPERIMENT = Experiment(
    name="transfer",
    title="What it costs to move data",
    measures="copies from 1 KiB to 1 GiB, as time and memory allow, to the device and back, from ordinary (pageable) "
    "memory, from pinned memory, and without waiting for each; what pinning itself costs. Without a device: copies within "
    "host memory, into a tensor that is used again and into a fresh one",
    why="each copy takes a latency, however small it is, and then its bytes at some bandwidth. Many small copies pay the "
    "latency again and again; pinned memory raises the bandwidth, but pinning takes time itself and can be slower",
    reading="the flat part on the left is latency: a copy there costs the same whatever its size. On the right time grows "
    "with the bytes. Where two curves cross, the other way begins to pay",
    pictures=(
        Picture(
            title="Time of a copy over its size",
            kind="lines",
            x="bytes",
            y="seconds",
            series=("direction", "way"),
            unit="s",
            x_unit="B",
            x_title="bytes",
            y_title="seconds",
            x_log=True,
            y_log=True,
            where={"kind": "copy"},
        ),
        Picture(
            title="Bandwidth over the size",
            kind="lines",
            x="bytes",
            y="rate",
            series=("direction", "way"),
            unit="B/s",
            x_unit="B",
            x_title="bytes",
            y_title="bytes a second",
            x_log=True,
            y_log=True,
            where={"kind": "copy"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
)
