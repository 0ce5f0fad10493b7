"""The rows of the machine panel: what it shows at which size.

Pure functions of facts, so that tests read characters. Numbers have fixed widths and are never cut; text is cut
with "…". Never imports Textual.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from epochtop.engine.hardware import EngineLoad, Fact, Gpu, GpuSample, Machine, Sample, cpu_use, gpu_use
from epochtop.engine.protocol.quantities import GIB, UNKNOWN, plural
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.gauges import (
    GRAPH,
    LABEL_WIDTH,
    WIDE,
    Gauge,
    Histories,
    celsius,
    graph,
    percent,
    used_of,
    watts,
)
from epochtop.tui.cells.rows import BAD, QUIET, TEXT, captioned, cut, row, wrapped_lines
from epochtop.tui.machine.facts import cores_and_threads, gpus_are_old, host_text, processor, short_text

MOST_GRAPH_ROWS = 8
"""Rows of the highest graph."""


class RowBlock(NamedTuple):
    """Rows that are shown together or not at all. Less important blocks give way first when space is short."""

    importance: float
    """0 is the most important."""
    rows: Sequence[Row]
    gpu: bool = False
    """Whether the block is the one row that a GPU needs at least."""


def panel_rows(
    machine: Machine, sample: Sample | None, histories: Histories, width: int, height: int, selected: int, marked: bool
) -> list[Row]:
    """The rows of a panel of this size. Graphs of a high panel have several rows."""
    plain = blocks(machine, sample, histories, width, selected, marked)
    spare = height - sum(len(block.rows) for block in plain)
    graph_rows = min(MOST_GRAPH_ROWS, spare // (2 + 2 * len(machine.gpus)))
    if graph_rows < 2:
        return fit(plain, width, height)
    return fit(blocks(machine, sample, histories, width, selected, marked, graph_rows), width, height)


def blocks(
    machine: Machine,
    sample: Sample | None,
    histories: Histories,
    width: int,
    selected: int = 0,
    marked: bool = False,
    graph_rows: int = 0,
) -> list[RowBlock]:
    """Everything the panel can show at `width`, from top to bottom.

    `marked` puts a sign before the GPU at position `selected`, if there are several, and prefers its rows. `graph_rows` is the
    height of graphs that have rows of their own.
    """
    gpu_samples = {gpu.index: gpu for gpu in sample.gpus} if sample else {}
    old = gpus_are_old(sample)
    cpu, memory = _cpu_gauge(machine, sample, histories), _memory_gauge(machine, sample, histories)
    gauges = [_gpu_gauges(gpu, gpu_samples.get(gpu.index), histories, width, old) for gpu in machine.gpus]
    column = max(gauge.width for gauge in (cpu, memory, *(gauge for pair in gauges for gauge in pair)))
    result = _host_blocks(machine, sample, width, *(gauge.rows(width, column, graph_rows) for gauge in (cpu, memory)))
    for place, (gpu, pair) in enumerate(zip(machine.gpus, gauges, strict=True)):
        first = place == selected and (marked or len(gauges) == 1)
        sign = "▸ " if first and len(gauges) > 1 else ""
        gpu_sample = gpu_samples.get(gpu.index)
        result += _gpu_blocks(gpu, gpu_sample, pair, width, column, sign, first, graph_rows)
        if first:
            result += _detail_blocks(gpu, gpu_sample, machine, width)
        elif fatal := [problem for problem in (gpu_sample or gpu).problems if problem.is_fatal]:
            text = cut(fatal[0].text, width - LABEL_WIDTH)
            result.append(RowBlock(1.6, _captioned("!", [text], width, BAD)))
    return result + _foot_blocks(machine, width)


def _host_blocks(
    machine: Machine, sample: Sample | None, width: int, cpu: list[Row], memory: list[Row]
) -> list[RowBlock]:
    cores = row((cut(cores_and_threads(machine, width), width), QUIET))
    result = [
        RowBlock(3, [row((cut(processor(machine), width), TEXT))]),
        RowBlock(4 if machine.usable_cpus_reason else 4.2, [cores]),
        RowBlock(0, cpu),
        RowBlock(7, _core_rows(machine, sample, width)),
        RowBlock(1, memory),
    ]
    if sample is not None and sample.engine is not None:
        result.append(RowBlock(6.5, _captioned("Eng", [engine_text(sample.engine)], width)))
    if not machine.gpus:
        room = width - LABEL_WIDTH
        reason = wrapped_lines(f"{UNKNOWN} {machine.no_gpu_reason}", room, 3)
        result.append(RowBlock(2, _captioned("GPU", reason, width, QUIET)))
        result.append(RowBlock(4.5, _captioned("", wrapped_lines(cpu_use(machine), room, 2), width, QUIET)))
    return result


def _gpu_blocks(
    gpu: Gpu,
    sample: GpuSample | None,
    gauges: tuple[Gauge, Gauge],
    width: int,
    column: int,
    sign: str,
    first: bool,
    graph_rows: int,
) -> list[RowBlock]:
    """Name, load and memory of a GPU."""
    load, memory = gauges
    name = _captioned(gpu_label(gpu), [sign + _gpu_name(gpu, width - LABEL_WIDTH - len(sign))], width)
    return [
        RowBlock(1.5 if first else 5, name),
        RowBlock(1 if first else 2, _gpu_load(gpu, sample, load, width, column, graph_rows), gpu=True),
        RowBlock(1.8 if first else 4, memory.rows(width, column, graph_rows)),
    ]


def _detail_blocks(gpu: Gpu, sample: GpuSample | None, machine: Machine, width: int) -> list[RowBlock]:
    """How busy the selected GPU really is, what slows it down, and what it is good for."""
    room, result = width - LABEL_WIDTH, []
    if sample is not None and (sample.sm_percent.value is not None or sample.utilization_percent.value is not None):
        result.append(RowBlock(4.4, _captioned("", [real_use(sample, room)], width, QUIET)))
    if sample is not None and sample.slowed_by.value:
        causes = wrapped_lines(f"slowed by {', '.join(sample.slowed_by.value)}", room, 2)
        result.append(RowBlock(2.5, _captioned("", causes, width, BAD)))
    problems = sample.problems if sample is not None else gpu.problems
    for problem in problems:
        lines = wrapped_lines(f"{problem.text}: {problem.advice}", room, 3)
        result.append(RowBlock(1.3 if problem.is_fatal else 2.4, _captioned("!", lines, width, BAD)))
    if any(problem.is_fatal for problem in problems):
        return result
    use = wrapped_lines(gpu_use(gpu, machine.usable_memory_bytes, problems), room, 2)
    return [*result, RowBlock(5.5, _captioned("", use, width, QUIET))]


def _foot_blocks(machine: Machine, width: int) -> list[RowBlock]:
    """Driver and host."""
    result = []
    if machine.driver_version.value or machine.cuda_version.value:
        versions = f"driver {short_text(machine.driver_version)} · up to CUDA {short_text(machine.cuda_version)}"
        result.append(RowBlock(8, [row((cut(versions, width), QUIET))]))
    return [*result, RowBlock(9, [row((cut(host_text(machine), width), QUIET))])]


def real_use(sample: GpuSample, width: int) -> str:
    """How much of the GPU is at work where this is known, else what its "utilization" means."""
    parts = (("SM", sample.sm_percent), ("tensor", sample.tensor_percent), ("DRAM", sample.dram_percent))
    if sample.sm_percent.value is None:
        return cut("% of time with a kernel running", width)
    texts = [f"{name} {UNKNOWN if fact.value is None else f'{fact.value:.0f}':>2} %" for name, fact in parts]
    return cut(" ".join(texts), width)


def engine_text(engine: EngineLoad) -> str:
    """`101 %  0.3 GiB  process 4711`: 100 % is one busy CPU."""
    load = UNKNOWN if engine.cpu_percent.value is None else f"{engine.cpu_percent.value:.0f}"
    memory = UNKNOWN if engine.memory_bytes.value is None else f"{engine.memory_bytes.value / GIB:.1f}"
    return f"{load:>3} %  {memory} GiB  process {engine.pid}"


def compact_height(machine: Machine, width: int) -> int:
    """Rows for identity, gauges and what the machine is good for; the panel asks for this height."""
    if not machine.gpus:
        room = width - LABEL_WIDTH
        reason = wrapped_lines(f"{UNKNOWN} {machine.no_gpu_reason}", room, 3)
        return 4 + len(reason) + len(wrapped_lines(cpu_use(machine), room, 2))
    return 5 + 3 * len(machine.gpus)


def fit(candidates: Sequence[RowBlock], width: int, height: int) -> list[Row]:
    """The rows of the most important blocks that fit into `height`, in the order of the blocks."""
    room, chosen = height, set()
    for index in sorted(range(len(candidates)), key=lambda index: candidates[index].importance):
        if len(candidates[index].rows) <= room:
            room -= len(candidates[index].rows)
            chosen.add(index)
    placed = [(block, line) for index, block in enumerate(candidates) if index in chosen for line in block.rows]
    rows = [line for _, line in placed]
    missing = sum(1 for index, block in enumerate(candidates) if block.gpu and index not in chosen)
    if missing and placed and placed[-1][0].gpu:  # the last row gives way to the count
        rows[-1] = row((cut(f"… {plural(missing + 1, 'more GPU')}", width), QUIET))
    return rows


def _captioned(label: str, lines: Sequence[str], width: int, role: int = TEXT) -> list[Row]:
    """Rows behind a label of the panel, cut to `width`."""
    return captioned(label[:width], [cut(line, width - LABEL_WIDTH) for line in lines], min(LABEL_WIDTH, width), role)


# --- gauges -----------------------------------------------------------------------------------------------


def _cpu_gauge(machine: Machine, sample: Sample | None, histories: Histories) -> Gauge:
    load = sample.cpu_percent if sample else Fact[float](reason="")
    numbers = (percent(load), f" {plural(machine.usable_cpus, 'CPU')}")
    return histories.gauge("CPU", "cpu", numbers)


def _memory_gauge(machine: Machine, sample: Sample | None, histories: Histories) -> Gauge:
    used = sample.memory_used_bytes if sample else None
    numbers = (used_of(used, machine.usable_memory_bytes),)
    return histories.gauge("Mem", "memory", numbers)


def _core_rows(machine: Machine, sample: Sample | None, width: int) -> list[Row]:
    """A block character per CPU that this process may run on, as many per row as fit."""
    loads = graph(core.percent for core in sample.core_percents) if sample else ""
    room = max(1, width - LABEL_WIDTH)
    lines = [loads[place * room : (place + 1) * room] for place in range(ceil(machine.runnable_cpus / room))]
    return captioned("Core"[: width - 1], lines, min(LABEL_WIDTH, width - 1), GRAPH)


def gpu_label(gpu: Gpu) -> str:
    """`GPU0`."""
    return f"GPU{gpu.index}"


def _gpu_name(gpu: Gpu, width: int) -> str:
    if gpu.name.value is None:
        return f"{UNKNOWN} {gpu.name.reason}"
    name = f"{gpu.name.value}{' · MIG' * gpu.mig}"
    return name if len(name) <= width else name.removeprefix("NVIDIA ")


def _gpu_gauges(gpu: Gpu, sample: GpuSample | None, histories: Histories, width: int, old: bool) -> tuple[Gauge, Gauge]:
    sample = sample or _without_figures(gpu.index)
    load, used, total = sample.utilization_percent, sample.memory_used_bytes, gpu.memory_bytes
    power = watts(sample.power_w, sample.power_limit_w, width >= WIDE)
    numbers = (percent(load), celsius(sample.temperature_c), power)
    memory = used_of(used.value, total.value) if total.value else ""
    reason = total.reason or used.reason
    return (
        histories.gauge(gpu_label(gpu), ("gpu", gpu.index), numbers, load.reason, old),
        histories.gauge("", ("gpu memory", gpu.index), (memory,), reason, old),
    )


def _without_figures(index: int) -> GpuSample:
    """The sample of a GPU that has not been read yet."""
    unread: Fact[Any] = Fact()
    return GpuSample(
        index=index,
        utilization_percent=unread,
        memory_used_bytes=unread,
        memory_total_bytes=unread,
        temperature_c=unread,
        power_w=unread,
        power_limit_w=unread,
    )


def _gpu_load(gpu: Gpu, sample: GpuSample | None, gauge: Gauge, width: int, column: int, graph_rows: int) -> list[Row]:
    """The gauge of the load; just the reason where load, temperature and power are all unknown."""
    facts = (sample.utilization_percent, sample.temperature_c, sample.power_w) if sample else ()
    if sample and all(fact.value is None for fact in facts):
        return _captioned(gpu_label(gpu), [f"{UNKNOWN} {sample.utilization_percent.reason}"], width, QUIET)
    return gauge.rows(width, column, graph_rows)
