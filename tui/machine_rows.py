"""The rows of the machine panel as text: what is shown at which size, and in which style.

Pure functions of facts, so a test reads characters. Numbers have fixed widths and are never cut; words are
cut with "…". Must not import Textual.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from math import ceil
from typing import NamedTuple

from engine.hardware import Fact, Gpu, GpuSample, Machine, Sample

BLOCKS = "▁▂▃▄▅▆▇█"
UNKNOWN = "—"
LABEL_WIDTH = 5
SMALLEST_GRAPH = 4
WIDE = 48
"""From this width on there is room for limits beside values."""
HISTORY_LENGTH = 240
"""Samples that are kept: more than a graph is ever wide."""

GIB = 1 << 30


class Span(NamedTuple):
    """A piece of a row. `style` is `label`, `value`, `graph` or `unknown`."""

    text: str
    style: str = "value"


Row = tuple[Span, ...]


class Block(NamedTuple):
    """Rows that are shown together or not at all. Less important ones go first when room is short."""

    importance: int
    """0 is the last to go."""
    rows: Sequence[Row]
    gpu: bool = False
    """Whether this is the only row that a GPU is sure to have."""


class Histories:
    """The last percentages of every figure, None where one was unknown."""

    def __init__(self) -> None:
        self._values: defaultdict[Hashable, deque[float | None]] = defaultdict(lambda: deque(maxlen=HISTORY_LENGTH))

    def add(self, sample: Sample) -> None:
        """Take in one sample of everything."""
        self._values["cpu"].append(sample.cpu_percent.value)
        self._values["memory"].append(_share(sample.memory_used_bytes, sample.memory_usable_bytes))
        for gpu in sample.gpus:
            self._values["gpu", gpu.index].append(gpu.utilization_percent.value)
            share = _share(gpu.memory_used_bytes.value, gpu.memory_total_bytes.value)
            self._values["gpu memory", gpu.index].append(share)

    def graph(self, name: Hashable, width: int) -> str:
        """The last `width` values, newest at the right; blank where there is none."""
        return graph(list(self._values[name])[-width:]).rjust(width)


def graph(percents: Iterable[float | None]) -> str:
    """One block a value: `▁` for 0, `█` for 100 percent, blank for unknown."""
    return "".join(" " if percent is None else BLOCKS[_level(percent)] for percent in percents)


def _level(percent: float) -> int:
    return min(7, max(0, int(percent * 8 / 100)))


def _share(used: float | None, total: float | None) -> float | None:
    return 100 * used / total if used is not None and total else None


# --- numbers of fixed width -------------------------------------------------------------------------------


def percent(fact: Fact[float]) -> str:
    """` 97 %`, five wide."""
    return f"{UNKNOWN:>3}  " if fact.value is None else f"{fact.value:>3.0f} %"


def celsius(fact: Fact[float]) -> str:
    """` 61 °C`, six wide."""
    return f"{UNKNOWN:>3}   " if fact.value is None else f"{fact.value:>3.0f} °C"


def watts(power: Fact[float], limit: Fact[float], with_limit: bool) -> str:
    """` 412 W`, or ` 412/700 W` with the limit."""
    number = f"{UNKNOWN:>4}" if power.value is None else f"{power.value:>4.0f}"
    return f"{number}{f'/{limit.value:<4.0f}'.rstrip() if with_limit and limit.value is not None else ''} W"


def used_of(used_bytes: float | None, total_bytes: float) -> str:
    """` 1.2 / 23.5 GiB`; as wide as its total for any value up to it."""
    total = gib(total_bytes)
    used = UNKNOWN if used_bytes is None else f"{used_bytes / GIB:.{_decimals(total_bytes)}f}"
    return f"{used:>{len(total)}} / {total} GiB"


def gib(size_bytes: float) -> str:
    """`23.5`, `140`: gibibytes as they are said."""
    return f"{size_bytes / GIB:.{_decimals(size_bytes)}f}"


def _decimals(total_bytes: float) -> int:
    return 1 if total_bytes < 99.95 * GIB else 0


def cut(text: str, width: int) -> str:
    """Words in at most `width` cells."""
    return text if len(text) <= width else text[: max(0, width - 1)].rstrip() + "…" * (width > 0)


# --- rows -------------------------------------------------------------------------------------------------


class Gauge(NamedTuple):
    """One row of a label, a graph over time and numbers, each of constant width."""

    label: str
    graph: Callable[[int], str]
    numbers: tuple[str, ...]
    reason: str = ""
    """Stands where the graph is when the graphed value is unknown."""

    @property
    def width(self) -> int:
        """Cells of the numbers."""
        return len(" ".join(self.numbers))

    def row(self, width: int, numbers_width: int) -> Row:
        """The row with its numbers in a column of `numbers_width`; without graph, then without numbers, if narrow."""
        room = width - LABEL_WIDTH - 1 - numbers_width
        label = Span(self.label.ljust(LABEL_WIDTH)[:width], "label")
        if room < SMALLEST_GRAPH:
            return (label, Span(_that_fit(self.numbers, width - LABEL_WIDTH)))
        numbers = Span(" " + " ".join(self.numbers))
        if self.reason:
            return (label, Span(cut(f"{UNKNOWN} {self.reason}", room).ljust(room), "unknown"), numbers)
        return (label, Span(self.graph(room), "graph"), numbers)


def _that_fit(numbers: Sequence[str], width: int) -> str:
    text = ""
    for number in numbers:
        longer = f"{text} {number}" if text else number
        if len(longer) > width:
            break
        text = longer
    return text


def blocks(machine: Machine, sample: Sample | None, histories: Histories, width: int) -> list[Block]:
    """Everything there is to show at `width`, from top to bottom."""
    gpus = {gpu.index: gpu for gpu in sample.gpus} if sample else {}
    cpu, memory = _cpu_gauge(machine, sample, histories), _memory_gauge(machine, sample, histories)
    gauges = [_gpu_gauges(gpu, gpus.get(gpu.index), histories, width) for gpu in machine.gpus]
    column = max(gauge.width for gauge in (cpu, memory, *(gauge for pair in gauges for gauge in pair)))
    found = [
        Block(3, [(Span(cut(processor(machine), width)),)]),
        Block(
            4 if machine.usable_cpus_reason else 6, [(Span(cut(cores_and_threads(machine, width), width), "label"),)]
        ),
        Block(0, [cpu.row(width, column)]),
        Block(7, _core_rows(machine, sample, width)),
        Block(1, [memory.row(width, column)]),
    ]
    if not machine.gpus:
        found.append(Block(2, [_labelled("GPU", f"{UNKNOWN} {machine.no_gpu_reason}", width, "unknown")]))
    for gpu, (load, used) in zip(machine.gpus, gauges, strict=True):
        found.append(Block(5, [_labelled(_gpu_label(gpu), _gpu_name(gpu, width - LABEL_WIDTH), width)]))
        found.append(Block(2, [_gpu_load(gpu, gpus.get(gpu.index), load, width, column)], gpu=True))
        found.append(Block(4, [used.row(width, column)]))
    if machine.driver_version.value or machine.cuda_version.value:
        versions = f"driver {_text(machine.driver_version)} · up to CUDA {_text(machine.cuda_version)}"
        found.append(Block(8, [(Span(cut(versions, width), "label"),)]))
    found.append(Block(9, [(Span(cut(f"{machine.host} · {machine.os}", width), "label"),)]))
    return found


def compact_height(machine: Machine) -> int:
    """Rows that the panel asks for: identity and gauges, without per-core loads, versions and host."""
    return 4 + (3 * len(machine.gpus) or 1)


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


def _text(fact: Fact[str]) -> str:
    return fact.value or UNKNOWN


def processor(machine: Machine) -> str:
    """Model and micro-architecture, unless the one names the other."""
    model, architecture = _text(machine.cpu.model), machine.cpu.microarchitecture.value
    return f"{model} · {architecture}" if architecture and architecture not in model else model


def cores_and_threads(machine: Machine, width: int) -> str:
    """`2 of 168 threads usable (cgroup)`, with the cores where there is room."""
    cpu = machine.cpu
    threads, cores = _plural(cpu.threads, "thread"), _cores(machine)
    if machine.usable_cpus_reason:
        usable = f"{machine.usable_cpus} of {threads} usable ({machine.usable_cpus_reason})"
        longer = f"{cores} · {usable}"
        return longer if cores and len(longer) <= width else usable
    return f"{cores} · {threads}" if cores else threads


def _cores(machine: Machine) -> str:
    cpu = machine.cpu
    if cpu.performance_cores is not None and cpu.efficiency_cores is not None:
        return f"{cpu.performance_cores} P + {cpu.efficiency_cores} E cores"
    return _plural(cpu.cores.value, "core") if cpu.cores.value is not None else ""


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _cpu_gauge(machine: Machine, sample: Sample | None, histories: Histories) -> Gauge:
    load = sample.cpu_percent if sample else Fact[float](reason="")
    numbers = (percent(load), f" {_plural(machine.usable_cpus, 'CPU')}")
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


def _gpu_label(gpu: Gpu) -> str:
    return f"GPU{gpu.index}"


def _gpu_name(gpu: Gpu, width: int) -> str:
    if gpu.name.value is None:
        return f"{UNKNOWN} {gpu.name.reason}"
    name = f"{gpu.name.value}{' · MIG' * gpu.mig}"
    return name if len(name) <= width else name.removeprefix("NVIDIA ")


def _gpu_gauges(gpu: Gpu, sample: GpuSample | None, histories: Histories, width: int) -> tuple[Gauge, Gauge]:
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
        Gauge(_gpu_label(gpu), lambda room: histories.graph(("gpu", gpu.index), room), numbers, load.reason),
        Gauge(
            "", lambda room: histories.graph(("gpu memory", gpu.index), room), (memory,), total.reason or used.reason
        ),
    )


def _gpu_load(gpu: Gpu, sample: GpuSample | None, gauge: Gauge, width: int, column: int) -> Row:
    """A card of which nothing is known has its whole row for the reason."""
    if sample and all(
        fact.value is None for fact in (sample.utilization_percent, sample.temperature_c, sample.power_w)
    ):
        return _labelled(_gpu_label(gpu), f"{UNKNOWN} {sample.utilization_percent.reason}", width, "unknown")
    return gauge.row(width, column)


def reasons(machine: Machine | None, sample: Sample | None) -> list[str]:
    """Why each unknown figure is unknown, one line each."""
    if machine is None:
        return []
    named: list[tuple[str, Fact[str] | Fact[int] | Fact[float]]] = [
        ("CPU model", machine.cpu.model),
        ("CPU micro-architecture", machine.cpu.microarchitecture),
        ("CPU cores", machine.cpu.cores),
    ]
    for gpu in machine.gpus:
        named += [(f"GPU {gpu.index} name", gpu.name), (f"GPU {gpu.index} memory", gpu.memory_bytes)]
    for load in sample.gpus if sample else ():
        named += [
            (f"GPU {load.index} utilization", load.utilization_percent),
            (f"GPU {load.index} memory", load.memory_used_bytes),
            (f"GPU {load.index} temperature", load.temperature_c),
            (f"GPU {load.index} power", load.power_w),
            (f"GPU {load.index} power limit", load.power_limit_w),
        ]
    lines = [f"{name}: {fact.reason}" for name, fact in named if fact.value is None and fact.reason]
    if not machine.gpus and machine.no_gpu_reason:
        lines.append(f"GPU: {machine.no_gpu_reason}")
    return list(dict.fromkeys(lines))
