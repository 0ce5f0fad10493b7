"""The rows of the machine panel as text: what is shown at which size, and in which style.

Pure functions of facts, so a test reads characters. Numbers have fixed widths and are never cut; words are
cut with "…". Must not import Textual.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from epochtop.engine.hardware import EngineLoad, Fact, Gpu, GpuSample, Machine, Sample, cpu_use, gpu_use
from epochtop.engine.protocol.quantities import GIB, plural
from epochtop.tui.cells.gauges import (
    LABEL_WIDTH,
    UNKNOWN,
    WIDE,
    Gauge,
    Histories,
    Row,
    Span,
    celsius,
    cut,
    graph,
    percent,
    used_of,
    watts,
    wrapped,
)

GPU_STALE_S = 3.0
"""From this age on the GPUs' figures are marked: their driver does not answer."""


class Block(NamedTuple):
    """Rows that are shown together or not at all. Less important ones go first when room is short."""

    importance: float
    """0 is the last to go."""
    rows: Sequence[Row]
    gpu: bool = False
    """Whether this is the only row that a GPU is sure to have."""


def blocks(
    machine: Machine, sample: Sample | None, histories: Histories, width: int, selected: int = 0, marked: bool = False
) -> list[Block]:
    """Everything there is to show at `width`, from top to bottom.

    `marked` puts a sign before the GPU at `selected`, where there are several, and shows most of it.
    """
    gpus = {gpu.index: gpu for gpu in sample.gpus} if sample else {}
    old = gpus_are_old(sample)
    cpu, memory = _cpu_gauge(machine, sample, histories), _memory_gauge(machine, sample, histories)
    gauges = [_gpu_gauges(gpu, gpus.get(gpu.index), histories, width, old) for gpu in machine.gpus]
    column = max(gauge.width for gauge in (cpu, memory, *(gauge for pair in gauges for gauge in pair)))
    found = _host_blocks(machine, sample, width, cpu.row(width, column), memory.row(width, column))
    for place, (gpu, (load, used)) in enumerate(zip(machine.gpus, gauges, strict=True)):
        first = place == selected and (marked or len(gauges) == 1)
        sign = "▸ " if first and len(gauges) > 1 else ""
        name = _labelled(gpu_label(gpu), sign + _gpu_name(gpu, width - LABEL_WIDTH - len(sign)), width)
        found.append(Block(1.5 if first else 5, [name]))
        row = _gpu_load(gpu, gpus.get(gpu.index), load, width, column)
        found.append(Block(1 if first else 2, [row], gpu=True))
        found.append(Block(1.8 if first else 4, [used.row(width, column)]))
        if first:
            found += _more_of(gpu, gpus.get(gpu.index), machine, width)
    if machine.driver_version.value or machine.cuda_version.value:
        versions = f"driver {said(machine.driver_version)} · up to CUDA {said(machine.cuda_version)}"
        found.append(Block(8, [(Span(cut(versions, width), "label"),)]))
    found.append(Block(9, [(Span(cut(place_of(machine), width), "label"),)]))
    return found


def _host_blocks(machine: Machine, sample: Sample | None, width: int, cpu: Row, memory: Row) -> list[Block]:
    found = [
        Block(3, [(Span(cut(processor(machine), width)),)]),
        Block(
            4 if machine.usable_cpus_reason else 4.2, [(Span(cut(cores_and_threads(machine, width), width), "label"),)]
        ),
        Block(0, [cpu]),
        Block(7, _core_rows(machine, sample, width)),
        Block(1, [memory]),
    ]
    if sample is not None and sample.engine is not None:
        found.append(Block(6.5, [_labelled("Eng", engine_text(sample.engine), width)]))
    if not machine.gpus:
        room = width - LABEL_WIDTH
        why = wrapped(f"{UNKNOWN} {machine.no_gpu_reason}", room, 3)
        found.append(
            Block(2, [_labelled("GPU" * (not place), line, width, "unknown") for place, line in enumerate(why)])
        )
        use = wrapped(cpu_use(machine), room, 2)
        found.append(Block(4.5, [_labelled("", line, width, "label") for line in use]))
    return found


def _more_of(gpu: Gpu, sample: GpuSample | None, machine: Machine, width: int) -> list[Block]:
    """Of the selected GPU: its real use and what it is good for."""
    found = []
    if sample is not None and (sample.sm_percent.value is not None or sample.utilization_percent.value is not None):
        found.append(Block(4.4, [_labelled("", real_use(sample, width - LABEL_WIDTH), width, "label")]))
    if sample is not None and sample.slowed_by.value:
        why = wrapped(f"slowed by {', '.join(sample.slowed_by.value)}", width - LABEL_WIDTH, 2)
        found.append(Block(2.5, [_labelled("", line, width, "bad") for line in why]))
    use = wrapped(gpu_use(gpu, machine.usable_memory_bytes), width - LABEL_WIDTH, 2)
    found.append(Block(5.5, [_labelled("", line, width, "label") for line in use]))
    return found


def real_use(sample: GpuSample, width: int) -> str:
    """How much of the card works, where it can tell; else what its "utilization" means."""
    real = (("SM", sample.sm_percent), ("tensor", sample.tensor_percent), ("DRAM", sample.dram_percent))
    if sample.sm_percent.value is None:
        return cut("% of the time in which some kernel ran", width)
    each = [f"{name} {UNKNOWN if fact.value is None else f'{fact.value:.0f}':>2} %" for name, fact in real]
    return cut(" ".join(each), width)


def engine_text(engine: EngineLoad) -> str:
    """`engine 101 %, 0.3 GiB`: 100 % is one CPU kept busy."""
    load = UNKNOWN if engine.cpu_percent.value is None else f"{engine.cpu_percent.value:.0f}"
    memory = UNKNOWN if engine.memory_bytes.value is None else f"{engine.memory_bytes.value / GIB:.1f}"
    return f"{load:>3} %  {memory} GiB  process {engine.pid}"


def gpus_are_old(sample: Sample | None) -> bool:
    """Whether the driver has not answered for some seconds."""
    return sample is not None and sample.gpu_age_s > GPU_STALE_S


def place_of(machine: Machine) -> str:
    """`cpu-box-3 · Linux 6.8.0 · docker`."""
    return " · ".join(filter(None, (machine.host, machine.os, machine.container)))


def compact_height(machine: Machine, width: int) -> int:
    """Rows that the panel asks for: identity, gauges and what it is good for."""
    if not machine.gpus:
        room = width - LABEL_WIDTH
        return 4 + len(wrapped(f"{UNKNOWN} {machine.no_gpu_reason}", room, 3)) + len(wrapped(cpu_use(machine), room, 2))
    return 5 + 3 * len(machine.gpus)


def fit(found: Sequence[Block], width: int, height: int) -> list[Row]:
    """The rows of the most important blocks that fit in `height`, in their order."""
    room, chosen = height, set()
    for index in sorted(range(len(found)), key=lambda index: found[index].importance):
        if len(found[index].rows) <= room:
            room -= len(found[index].rows)
            chosen.add(index)
    shown = [index for index in range(len(found)) if index in chosen]
    missing = sum(1 for index, block in enumerate(found) if block.gpu and index not in chosen)
    rows = [(index, row) for index in shown for row in found[index].rows]
    if missing and rows:
        is_gpu = found[rows[-1][0]].gpu
        more = cut(f"… {missing + is_gpu} more GPU{'s' * (missing + is_gpu > 1)}", width)
        rows[-1] = (rows[-1][0], (Span(more, "label"),)) if is_gpu else rows[-1]
    return [row for _, row in rows]


def _labelled(label: str, text: str, width: int, style: str = "value") -> Row:
    return (Span(label.ljust(LABEL_WIDTH)[:width], "label"), Span(cut(text, width - LABEL_WIDTH), style))


def said(fact: Fact[str]) -> str:
    """A word, or a dash."""
    return fact.value or UNKNOWN


def processor(machine: Machine) -> str:
    """Model and micro-architecture, unless the one names the other."""
    model, architecture = said(machine.cpu.model), machine.cpu.microarchitecture.value
    return f"{model} · {architecture}" if architecture and architecture not in model else model


def cores_and_threads(machine: Machine, width: int) -> str:
    """`2 of 168 threads usable (cgroup)`, with the cores where there is room."""
    cpu = machine.cpu
    threads, cores = plural(cpu.threads, "thread"), _cores(machine)
    if machine.usable_cpus_reason:
        usable = f"{machine.usable_cpus} of {threads} usable ({machine.usable_cpus_reason})"
        longer = f"{cores} · {usable}"
        return longer if cores and len(longer) <= width else usable
    return f"{cores} · {threads}" if cores else threads


def _cores(machine: Machine) -> str:
    cpu = machine.cpu
    if cpu.performance_cores is not None and cpu.efficiency_cores is not None:
        return f"{cpu.performance_cores} P + {cpu.efficiency_cores} E cores"
    return plural(cpu.cores.value, "core") if cpu.cores.value is not None else ""


def _cpu_gauge(machine: Machine, sample: Sample | None, histories: Histories) -> Gauge:
    load = sample.cpu_percent if sample else Fact[float](reason="")
    numbers = (percent(load), f" {plural(machine.usable_cpus, 'CPU')}")
    return Gauge("CPU", lambda width: histories.graph("cpu", width), numbers)


def _memory_gauge(machine: Machine, sample: Sample | None, histories: Histories) -> Gauge:
    used = sample.memory_used_bytes if sample else None
    numbers = (used_of(used, machine.usable_memory_bytes),)
    return Gauge("Mem", lambda width: histories.graph("memory", width), numbers)


def _core_rows(machine: Machine, sample: Sample | None, width: int) -> list[Row]:
    """One block a CPU that this process may run on, as many as fit in a row."""
    loads = graph(core.percent for core in sample.core_percents) if sample else ""
    room = max(1, width - LABEL_WIDTH)
    return [
        (
            Span(("" if row else "Core").ljust(LABEL_WIDTH)[: width - 1], "label"),
            Span(loads[row * room : (row + 1) * room], "graph"),
        )
        for row in range(ceil(machine.runnable_cpus / room))
    ]


def gpu_label(gpu: Gpu) -> str:
    """`GPU0`."""
    return f"GPU{gpu.index}"


def _gpu_name(gpu: Gpu, width: int) -> str:
    if gpu.name.value is None:
        return f"{UNKNOWN} {gpu.name.reason}"
    name = f"{gpu.name.value}{' · MIG' * gpu.mig}"
    return name if len(name) <= width else name.removeprefix("NVIDIA ")


def _gpu_gauges(gpu: Gpu, sample: GpuSample | None, histories: Histories, width: int, old: bool) -> tuple[Gauge, Gauge]:
    empty = Fact[float]()
    load, temperature, power, limit = (
        (sample.utilization_percent, sample.temperature_c, sample.power_w, sample.power_limit_w)
        if sample
        else (empty, empty, empty, empty)
    )
    numbers = (percent(load), celsius(temperature), watts(power, limit, width >= WIDE))
    used = sample.memory_used_bytes if sample else Fact[int]()
    total = gpu.memory_bytes
    memory = used_of(used.value, total.value) if total.value else ""
    return (
        Gauge(gpu_label(gpu), lambda room: histories.graph(("gpu", gpu.index), room), numbers, load.reason, old),
        Gauge(
            "",
            lambda room: histories.graph(("gpu memory", gpu.index), room),
            (memory,),
            total.reason or used.reason,
            old,
        ),
    )


def _gpu_load(gpu: Gpu, sample: GpuSample | None, gauge: Gauge, width: int, column: int) -> Row:
    """A card of which nothing is known has its whole row for the reason."""
    if sample and all(
        fact.value is None for fact in (sample.utilization_percent, sample.temperature_c, sample.power_w)
    ):
        return _labelled(gpu_label(gpu), f"{UNKNOWN} {sample.utilization_percent.reason}", width, "unknown")
    return gauge.row(width, column)
