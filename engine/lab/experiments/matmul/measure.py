"""Measures products of square matrices of growing size, per device and arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.device.select import free_bytes
from epochtop.engine.hardware import usable_cpus
from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.job.job import AUTOCAST
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.matmul.schema import BestShare, CpuFacts, Fields, Limit, Product
from epochtop.engine.lab.experiments.matmul.verdict import curves_of
from epochtop.engine.lab.instruments.clocks import repeated
from epochtop.engine.lab.instruments.sampling import Case, interleave, on_threads, restores_threads
from epochtop.engine.lab.instruments.sizes import SizeSeries, grow, longest_s
from epochtop.engine.lab.instruments.tf32 import with_tf32
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.lab.statistics import select

GROWTH = 8
"""Growth of the work when the size doubles."""
ROUNDS, QUICK_ROUNDS = 5, 3
CLEAR = 0.8
"""Fraction of one thread's time below which all threads are clearly faster."""
SAMPLE_S = 0.001
"""Shortest measurement for choosing threads."""
ITEM_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `cpu`, `limit` (the end of the sizes), `product`, and `share` (of the best)."""
    cpus = usable_cpus()
    instructions = identify_cpu(Roots()).vector_instructions.value
    yield CpuFacts(threads=cpus, instructions=", ".join(instructions) if instructions is not None else None)
    stacks = [(device, dtype) for device in context.devices for dtype in _dtypes(device)]
    rounds = QUICK_ROUNDS if context.quick else ROUNDS
    most_s = longest_s(0.85 * context.left_s() / len(stacks), GROWTH, rounds + 1)  # one more to choose threads
    cases: list[Case[Product]] = []
    for device, dtype in stacks:
        context.note(f"finding sizes for {dtype} on {device}")
        stack, limit = _sizes_of(context, device, dtype, _ThreadChoice(cpus), most_s)
        cases += stack
        if limit is not None:
            yield limit
    context.note("multiplying")
    products: list[Product] = []
    for product in interleave(context, cases, rounds=rounds):
        products.append(product)
        yield product
    yield from _shares(products)


def _dtypes(device: str) -> tuple[str, ...]:
    if device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 0) and torch.version.hip is None:
        return ("fp32", "tf32", "bf16", "fp16")
    return ("fp32", "bf16", "fp16")


class _ThreadChoice:
    """Chooses 1 or all CPU threads for products of growing size, by measuring, as a run does for its steps."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._sure = cpus == 1
        """Whether all threads were clearly faster at a smaller size, without a disturbance since."""
        self._speed = 0.0

    def best(self, run: Callable[[int], float], work: float) -> int:
        """The faster number. One thread is not tried again once it was clearly slower: large products share better."""
        all_s = self._seconds(run, self._cpus)
        if self._sure and work / all_s >= CLEAR * self._speed:
            self._speed = max(self._speed, work / all_s)
            return self._cpus
        one_s = self._seconds(run, 1)
        self._sure = self._cpus == 1 or all_s < CLEAR * one_s
        self._speed = max(self._speed, work / min(one_s, all_s))
        return self._cpus if all_s < one_s else 1

    def _seconds(self, run: Callable[[int], float], threads: int) -> float:
        torch.set_num_threads(threads)
        seconds = run(1)
        if seconds >= SAMPLE_S:
            return seconds
        times = max(1, round(SAMPLE_S / max(seconds, 1e-7)))
        return run(times) / times


def _sizes_of(
    context: ExperimentContext, device: str, dtype: str, threads: _ThreadChoice, most_s: float
) -> tuple[list[Case[Product]], Limit | None]:
    """Cases of one arithmetic on one device, and the reason for the end of the sizes; None if all were possible."""
    assert isinstance(context.fields, Fields)
    sizes = [size for power in range(4, 17) if (size := 1 << power) <= context.fields.largest]
    fitting = [size for size in sizes if _fits(device, dtype, size)]
    series = grow(context, [(size**3, partial(_case, device, dtype, size, threads)) for size in fitting], most_s)
    if len(series.cases) == len(sizes):
        return series.cases, None
    return series.cases, _limit(device, dtype, sizes[len(series.cases)], series)


def _limit(device: str, dtype: str, size: int, series: SizeSeries[Product]) -> Limit:
    limit = partial(Limit, device=device, dtype=dtype, size=size)
    if series.expected_s is not None:
        return limit(why="time", expected_s=series.expected_s)
    if series.error is None or is_out_of_memory(series.error):
        return limit(why="memory")
    return limit(why="unsupported", message=str(series.error).partition("\n")[0][:200])


def _fits(device: str, dtype: str, size: int) -> bool:
    """Whether both factors and the product, and those of all smaller sizes, need less than half of the free memory."""
    free = free_bytes(torch.device(device), exact=True)
    return free is None or 4 * size**2 * ITEM_BYTES[dtype] < free / 2


def _case(device: str, dtype: str, size: int, threads: _ThreadChoice) -> Case[Product]:
    """Products in a row into the same matrix; the device is waited for after the last one."""
    where, kind = torch.device(device), AUTOCAST.get(dtype, torch.float32)
    first, second = (torch.randn(size, size, device=where, dtype=kind) for _ in range(2))
    product = torch.empty_like(first)
    run = repeated(where, lambda: torch.mm(first, second, out=product))
    record = partial(_product, device, dtype, size)
    if where.type == "cuda":
        return Case(partial(record, None), with_tf32(dtype == "tf32", run))
    if where.type != "cpu":
        return Case(partial(record, None), run)
    number = threads.best(run, size**3)
    return Case(partial(record, number), on_threads(number, run))


def _product(device: str, dtype: str, size: int, threads: int | None, *, seconds: float, **turn: Any) -> Product:
    """The row of a product; `turn` has `round` and `repeats`."""
    gflops = 2 * size**3 / seconds / 1e9
    return Product(device=device, dtype=dtype, size=size, threads=threads, seconds=seconds, gflops=gflops, **turn)


def _shares(products: Sequence[Product]) -> Iterator[BestShare]:
    """The best product of each arithmetic relative to the best of all, one row per round."""
    curves = curves_of(products)
    best = max((curve.best.median for curve in curves), default=0.0)
    for curve in curves:
        for row in select(products, device=curve.device, dtype=curve.dtype, size=curve.best_size):
            yield BestShare(device=curve.device, dtype=curve.dtype, round=row.round, share=100 * row.gflops / best)
