"""How fast this machine multiplies matrices, by size, arithmetic and device.

Products are most of the work of training, and the only figure by which a device's speed can be told without a model. The
yardstick is the machine itself: every figure is a share of the best product that was measured here, not of a data sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Picture, Row
from epochtop.engine.lab.experiments.matmul.verdict import conclude, curves_of
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.instruments.sizes import Grown, grow, longest_s
from epochtop.engine.lab.statistics import select, values
from epochtop.engine.protocol.spec import declared

GROWTH = 8
"""Of the work, when the size doubles."""
ROUNDS, QUICK_ROUNDS = 5, 3
CLEAR = 0.8
"""Share of one thread's time below which all threads are clearly faster."""
SAMPLE_S = 0.001
"""How long products last by which threads are chosen, at least."""
ITEM_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far sizes go."""

    largest: Annotated[
        int, declared("largest size of the square matrices, if time and memory allow", "experiment", ge=32, le=65536)
    ] = 8192


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` cpu (what it has), limit (where sizes ended, and why), product, and share (of the best)."""
    from epochtop.engine.hardware import usable_cpus

    assert isinstance(bench.fields, Fields)
    every = usable_cpus()
    yield _cpu(every)
    stacks = [(device, dtype) for device in bench.devices for dtype in _dtypes(device)]
    rounds = QUICK_ROUNDS if bench.quick else ROUNDS
    most_s = longest_s(0.85 * bench.left_s() / len(stacks), GROWTH, rounds + 1)  # one more to choose threads
    cases: list[Case] = []
    for device, dtype in stacks:
        bench.say(f"finding sizes for {dtype} on {device}")
        grown, ended = _grown(bench, device, dtype, _Threads(every), most_s)
        cases += grown
        if ended is not None:
            yield {"kind": "limit", "device": device, "dtype": dtype, **ended}
    bench.say("multiplying")
    rows: list[Row] = []
    for row in interleave(bench, cases, rounds=rounds):
        rows.append(_with_speed(row))
        yield rows[-1]
    yield from _shares(rows)


def _cpu(threads: int) -> Row:
    from epochtop.engine.hardware.cgroups import Roots
    from epochtop.engine.hardware.cpu.identify import identify_cpu

    known = identify_cpu(Roots()).vector_instructions.value
    return {
        "kind": "cpu",
        "threads": threads,
        "instructions": ", ".join(known) if known is not None else None,
    }


def _dtypes(device: str) -> tuple[str, ...]:
    import torch

    if device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 0) and torch.version.hip is None:
        return ("fp32", "tf32", "bf16", "fp16")
    return ("fp32", "bf16", "fp16")


class _Threads:
    """Whether products of growing size are to have 1 or all CPU threads: measured, as a run measures it for its steps."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._sure = every == 1
        """Whether all were clearly faster than 1 at a smaller size, and nothing has disturbed them since."""
        self._speed = 0.0

    def best(self, run: Callable[[int], float], work: float) -> int:
        """The faster number. One thread is left out once it was clearly slower, since larger products are shared better."""
        all_s = self._seconds(run, self._every)
        if self._sure and work / all_s >= CLEAR * self._speed:
            self._speed = max(self._speed, work / all_s)
            return self._every
        one_s = self._seconds(run, 1)
        self._sure = self._every == 1 or all_s < CLEAR * one_s
        self._speed = max(self._speed, work / min(one_s, all_s))
        return self._every if all_s < one_s else 1

    def _seconds(self, run: Callable[[int], float], threads: int) -> float:
        import torch

        torch.set_num_threads(threads)
        took = run(1)
        if took >= SAMPLE_S:
            return took
        times = max(1, round(SAMPLE_S / max(took, 1e-7)))
        return run(times) / times


def _grown(
    bench: ExperimentContext, device: str, dtype: str, threads: _Threads, most_s: float
) -> tuple[list[Case], Row | None]:
    """Cases of one arithmetic on one device, and what kept larger ones out; None where nothing did."""
    assert isinstance(bench.fields, Fields)
    sizes = _sizes(bench.fields.largest)
    fitting = [size for size in sizes if _fits(device, dtype, size)]
    grown = grow(bench, [(size**3, partial(_case, device, dtype, size, threads)) for size in fitting], most_s)
    if len(grown.cases) == len(sizes):
        return grown.cases, None
    return grown.cases, {"size": sizes[len(grown.cases)], **_why_not(grown)}


def _why_not(grown: Grown) -> Row:
    from epochtop.engine.device.oom import is_out_of_memory

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

    from epochtop.engine.device.select import free_bytes

    free = free_bytes(torch.device(device), exact=True)
    return free is None or 4 * size**2 * ITEM_BYTES[dtype] < free / 2


def _case(device: str, dtype: str, size: int, threads: _Threads) -> Case:
    """Products in a row into the same matrix; the device is waited for after the last."""
    import torch

    from epochtop.engine.lab.instruments.clocks import repeated
    from epochtop.engine.lab.instruments.tf32 import with_tf32

    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    where, kind = torch.device(device), kinds.get(dtype, torch.float32)
    first, second = (torch.randn(size, size, device=where, dtype=kind) for _ in range(2))
    product = torch.empty_like(first)
    run = repeated(where, lambda: torch.mm(first, second, out=product))
    labels: Row = {"kind": "product", "device": device, "dtype": dtype, "size": size}
    if where.type == "cuda":
        return Case(labels, with_tf32(dtype == "tf32", run))
    if where.type != "cpu":
        return Case(labels, run)
    number = threads.best(run, size**3)
    return Case({**labels, "threads": number}, _with_threads(number, run))


def _with_threads(number: int, run: Callable[[int], float]) -> Callable[[int], float]:
    """`run` on so many threads, which are there before its clock begins."""
    import torch

    def threaded(times: int) -> float:
        if torch.get_num_threads() != number:
            torch.set_num_threads(number)
            run(1)
        return run(times)

    return threaded


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
