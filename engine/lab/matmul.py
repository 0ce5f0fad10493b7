"""How fast this machine multiplies matrices, by size, arithmetic and device.

Products are most of the work of training, and the only figure by which a device's speed can be told without a model. The
yardstick is the machine itself: every figure is a share of the best product that was measured here, not of a data sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import msgspec

from engine.lab.contract import Bench, Experiment, Picture, Row
from engine.lab.figures import select, values
from engine.lab.growing import Grown, grow, longest_s
from engine.lab.products import conclude, curves_of
from engine.lab.sampling import Case, interleave
from engine.spec import declared

GROWTH = 8
"""Of the work, when the size doubles."""
ROUNDS = 5
ITEM_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far sizes go."""

    largest: Annotated[
        int, declared("largest size of the square matrices, if time and memory allow", "experiment", ge=32, le=65536)
    ] = 8192


# --- measuring ---------------------------------------------------------------------------------------------------


def measure(bench: Bench) -> Iterator[Row]:
    """Rows of `kind` cpu (what it has), limit (where sizes ended, and why), product, and share (of the best)."""
    assert isinstance(bench.fields, Fields)
    yield _cpu()
    stacks = [(device, dtype) for device in bench.devices for dtype in _dtypes(device)]
    most_s = longest_s(0.85 * bench.left_s() / len(stacks), GROWTH, ROUNDS)
    cases: list[Case] = []
    with _own_settings():
        for device, dtype in stacks:
            bench.say(f"finding sizes for {dtype} on {device}")
            grown, ended = _grown(bench, device, dtype, most_s)
            cases += grown
            if ended is not None:
                yield {"kind": "limit", "device": device, "dtype": dtype, **ended}
        bench.say("multiplying")
        rows: list[Row] = []
        for row in interleave(bench, cases, rounds=ROUNDS):
            rows.append(_with_speed(row))
            yield rows[-1]
    yield from _shares(rows)


def _cpu() -> Row:
    import torch

    from engine.hardware.cgroup import Roots
    from engine.hardware.cpu import identify_cpu

    known = identify_cpu(Roots()).vector_instructions.value
    return {
        "kind": "cpu",
        "threads": torch.get_num_threads(),
        "instructions": ", ".join(known) if known is not None else None,
    }


def _dtypes(device: str) -> tuple[str, ...]:
    import torch

    if device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 0) and torch.version.hip is None:
        return ("fp32", "tf32", "bf16", "fp16")
    return ("fp32", "bf16", "fp16")


class _own_settings:  # noqa: N801 - reads as a statement
    """Whatever was set of torch's products is set again afterwards."""

    def __enter__(self) -> None:
        import torch

        self._tf32 = torch.backends.cuda.matmul.allow_tf32

    def __exit__(self, *_: object) -> None:
        _allow_tf32(self._tf32)


def _allow_tf32(allowed: bool) -> None:
    import torch

    if torch.backends.cuda.matmul.allow_tf32 != allowed:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _grown(bench: Bench, device: str, dtype: str, most_s: float) -> tuple[list[Case], Row | None]:
    """Cases of one arithmetic on one device, and what kept larger ones out; None where nothing did."""
    assert isinstance(bench.fields, Fields)
    sizes = _sizes(bench.fields.largest)
    fitting = [size for size in sizes if _fits(device, dtype, size)]
    grown = grow(bench, [(size**3, partial(_case, device, dtype, size)) for size in fitting], most_s)
    if len(grown.cases) == len(sizes):
        return grown.cases, None
    return grown.cases, {"size": sizes[len(grown.cases)], **_why_not(grown)}


def _why_not(grown: Grown) -> Row:
    from engine.outofmemory import is_out_of_memory

    if grown.expected_s is not None:
        return {"why": "time", "expected_s": grown.expected_s}
    if grown.error is None or is_out_of_memory(grown.error):
        return {"why": "memory"}
    return {"why": "unsupported", "message": str(grown.error).partition("\n")[0][:200]}


def _sizes(largest: int) -> list[int]:
    return [size for power in range(4, 17) if (size := 1 << power) <= largest]


def _fits(device: str, dtype: str, size: int) -> bool:
    """Whether both factors and the product, and those of all smaller sizes, need less than half of what is free."""
    import torch

    from engine.device import free_bytes

    free = free_bytes(torch.device(device), exact=True)
    return free is None or 4 * size**2 * ITEM_BYTES[dtype] < free / 2


def _case(device: str, dtype: str, size: int) -> Case:
    """Products in a row into the same matrix; the device is waited for after the last."""
    import torch

    from engine.lab.timing import repeated

    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    where, kind = torch.device(device), kinds.get(dtype, torch.float32)
    first, second = (torch.randn(size, size, device=where, dtype=kind) for _ in range(2))
    product = torch.empty_like(first)
    run = repeated(where, lambda: torch.mm(first, second, out=product))
    labels: Row = {"kind": "product", "device": device, "dtype": dtype, "size": size}
    return Case(labels, _with_tf32(run, dtype == "tf32") if where.type == "cuda" else run)


def _with_tf32(run: Callable[[int], float], allowed: bool) -> Callable[[int], float]:
    def set_and_run(times: int) -> float:
        _allow_tf32(allowed)
        return run(times)

    return set_and_run


def _with_speed(row: Row) -> Row:
    size, seconds = row["size"], row["seconds"]
    assert isinstance(size, int)
    assert isinstance(seconds, float)
    return {**row, "gflops": 2 * size**3 / seconds / 1e9}


def _shares(rows: Sequence[Row]) -> Iterator[Row]:
    """The best product of each arithmetic as a share of the best of all, a row a round."""
    curves = curves_of(rows)
    best = max((curve.best.median for curve in curves), default=0.0)
    for curve in curves:
        for row in select(rows, device=curve.device, dtype=curve.dtype, size=curve.best_size):
            share = 100 * values([row], "gflops")[0] / best
            yield {"kind": "share", "device": curve.device, "dtype": curve.dtype, "round": row["round"], "share": share}


EXPERIMENT = Experiment(
    name="matmul",
    title="How fast matrices are multiplied",
    measures="products of square matrices from 16 to 8,192, as time and memory allow, in fp32, tf32 (NVIDIA only), bf16 "
    "and fp16, on every device, in turn and repeatedly",
    why="products are most of the work of training. Small ones leave a device mostly waiting; the narrower arithmetics are "
    "faster only where the hardware has them, and slower, often much slower, where it has not",
    reading="a curve rises until the device is busy; where it becomes flat is the size that a layer and a batch should "
    "reach. Where the GPU's curve crosses the CPU's, the GPU begins to pay",
    pictures=(
        Picture(
            title="Speed over the size of the matrices",
            kind="lines",
            x="size",
            y="gflops",
            series=("device", "dtype"),
            unit="GFLOP/s",
            x_title="size",
            y_title="GFLOP/s",
            x_log=True,
            y_log=True,
            where={"kind": "product"},
        ),
        Picture(
            title="Best of each, of this machine's best",
            kind="bars",
            y="share",
            series=("device", "dtype"),
            unit="%",
            y_title="% of the best",
            where={"kind": "share"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
)
