"""Measures copies of growing size between host and device, or within the host, and the pinning of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any

import torch

from epochtop.engine.device.select import free_bytes
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.transfer.schema import CopyTime, Fields, Limit, PinTime
from epochtop.engine.lab.instruments.clocks import repeated
from epochtop.engine.lab.instruments.sampling import Case, Run, interleave
from epochtop.engine.lab.instruments.sizes import grow, longest_s
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.quantities import format_quantity

GROWTH = 4
SMALLEST_BYTES = 1 << 10
ROUNDS = 5
MAKING = 0.25
"""Fraction of the time of the first write to new memory that counts: it can be much slower than a copy."""
PINNED_AT_ONCE = 20
"""Most repeats of pinning in one measurement."""
MOST_REPEATS = 100_000
"""Most repeats of a copy in one measurement."""

TransferCase = Case[CopyTime | PinTime]
MakeRun = Callable[[int], tuple[Run, int]]
"""From a size: the run, and its most repeats."""


def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `copy`, `pin` (memory pinned in place) and `limit` (the end of the sizes)."""
    assert isinstance(context.fields, Fields)
    device = context.devices[-1]
    _note_missing(context, device)
    routes = _routes(Buffers(device))
    most_s = longest_s(0.85 * context.left_s() / len(routes), GROWTH, ROUNDS)
    sizes = _sizes(context.fields.largest_mib)
    cases: list[TransferCase] = []
    for route in routes:
        context.note(f"finding sizes for {route.name}")
        fitting = [size for size in sizes if _fits(device, size)]
        series = grow(context, [(size, partial(route.case, device, size)) for size in fitting], most_s, MAKING)
        cases += series.cases
        if len(series.cases) < len(sizes):
            why = "time" if series.expected_s else str(series.error or "memory").partition("\n")[0][:200]
            size = sizes[len(series.cases)]
            yield Limit(direction=route.direction or None, way=route.way, device=device, bytes=size, why=why)
    context.note("copying")
    yield from interleave(context, cases, rounds=ROUNDS)


def _note_missing(context: ExperimentContext, device: str) -> None:
    if device == "cpu":
        context.cannot_see.append(
            "copies to a device and back, and the gain from pinned memory: there was no device, so all copies are within "
            "host memory"
        )
    elif not device.startswith("cuda"):
        context.cannot_see.append(f"pinned memory: torch pins for CUDA only, not for {device}")


def _sizes(largest_mib: int) -> list[int]:
    sizes = [SMALLEST_BYTES]
    while sizes[-1] * GROWTH <= largest_mib << 20:
        sizes.append(sizes[-1] * GROWTH)
    return sizes


def _fits(device: str, size: int) -> bool:
    """Whether buffers of this size and all smaller sizes need less than half of the free memory."""
    buffers = {"cpu": 4, device: 2} if device != "cpu" else {"cpu": 4}
    free = {name: free_bytes(torch.device(name), exact=True) for name in buffers}
    return all(free[name] is None or count * size < (free[name] or 0) / 2 for name, count in buffers.items())


# --- routes ------------------------------------------------------------------------------------------------------


class Buffers:
    """Memory to copy from and to, one per size and place. All of it has been written to, so its pages exist."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.host = cache(lambda size: torch.ones(size, dtype=torch.uint8))
        self.other_host = cache(lambda size: torch.ones(size, dtype=torch.uint8))
        self.pinned = cache(lambda size: torch.ones(size, dtype=torch.uint8).pin_memory())
        self.on_device = cache(lambda size: torch.ones(size, dtype=torch.uint8, device=self.device))

    def repeated(self, work: Callable[[], object]) -> tuple[Run, int]:
        """The run of a case, and its most repeats."""
        return repeated(self.device, work), MOST_REPEATS


@dataclass(frozen=True)
class Route:
    """One way to move data."""

    direction: str
    """Empty for pinning, which moves nothing."""
    way: str
    make: MakeRun

    @property
    def name(self) -> str:
        """`to device pinned`."""
        return f"{self.direction} {self.way}".strip()

    def case(self, device: str, size: int) -> TransferCase:
        """The case of one size."""
        run, most = self.make(size)
        return Case(partial(self._row, device, size), run, most)

    def _row(self, device: str, size: int, *, seconds: float, **turn: Any) -> CopyTime | PinTime:
        """The row of a measurement; `turn` has `round` and `repeats`."""
        row: dict[str, Any] = {"way": self.way, "device": device, "bytes": size, "seconds": seconds, **turn}
        row["rate"] = size / seconds
        return CopyTime(direction=self.direction, **row) if self.direction else PinTime(**row)


def _routes(buffers: Buffers) -> list[Route]:
    """Every way to move data that this machine has."""
    device, host, pinned = buffers.on_device, buffers.host, buffers.pinned
    if buffers.device.type == "cpu":
        return [
            Route("in host", "reused", partial(_copy, buffers, buffers.other_host, host, False)),
            Route("in host", "fresh", partial(_fresh, buffers)),
        ]
    routes = [
        Route("to device", "pageable", partial(_copy, buffers, device, host, False)),
        Route("to host", "pageable", partial(_copy, buffers, host, device, False)),
    ]
    if buffers.device.type != "cuda":
        return routes
    return [
        *routes,
        Route("to device", "pinned", partial(_copy, buffers, device, pinned, False)),
        Route("to device", "non-blocking", partial(_copy, buffers, device, pinned, True)),
        Route("to device", "pinned anew", partial(_pin_and_copy, buffers)),
        Route("to host", "pinned", partial(_copy, buffers, pinned, device, False)),
        Route("to host", "non-blocking", partial(_copy, buffers, pinned, device, True)),
        Route("", "pinning", _pin),
    ]


Buffer = Callable[[int], torch.Tensor]
"""The buffer of a size in one place."""


def _copy(buffers: Buffers, target: Buffer, source: Buffer, non_blocking: bool, size: int) -> tuple[Run, int]:
    destination, data = target(size), source(size)
    return buffers.repeated(lambda: destination.copy_(data, non_blocking=non_blocking))


def _fresh(buffers: Buffers, size: int) -> tuple[Run, int]:
    """Into memory that is allocated and freed each time."""
    data = buffers.host(size)
    return buffers.repeated(lambda: data.clone())


def _pin_and_copy(buffers: Buffers, size: int) -> tuple[Run, int]:
    """As a DataLoader with `pin_memory`: into pinned memory, which torch reuses, and from there to the device."""
    destination, data = buffers.on_device(size), buffers.host(size)
    return buffers.repeated(lambda: destination.copy_(data.pin_memory(), non_blocking=True))


def _pin(size: int) -> tuple[Run, int]:
    """Pinning memory in place: the cost of pinning without a copy. Unpinning is not timed."""
    memory = torch.ones(size, dtype=torch.uint8)  # not a buffer: memory of other cases must stay pageable
    runtime = torch.cuda.cudart()

    def run(times: int) -> float:
        total_s = 0.0
        for _ in range(times):
            start = perf_counter()
            failed = int(runtime.cudaHostRegister(memory.data_ptr(), size, 0))
            total_s += perf_counter() - start
            if failed:
                raise RuntimeError(f"CUDA cannot pin {format_quantity(size, 'B')} (error {failed})")
            runtime.cudaHostUnregister(memory.data_ptr())
        return total_s

    return run, PINNED_AT_ONCE
