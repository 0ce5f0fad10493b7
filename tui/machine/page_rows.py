"""The rows of the full page about a machine: every fact, with its meaning, or the reason why it is unknown.

Pure functions of facts, so that tests read characters. Never imports Textual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from epochtop.engine.hardware import Fact, Machine, cpu_meaning
from epochtop.engine.protocol.quantities import UNKNOWN, format_bytes
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.gauges import GRAPH, STALE, Gauge, graph, percent, tall_graph, used_of
from epochtop.tui.cells.rows import BAD, EMPTY, QUIET, STRONG, TEXT, captioned, joined, recolored, row
from epochtop.tui.machine.facts import (
    AnyFact,
    FindingKind,
    caches,
    clocks,
    compatibility,
    cores_and_threads,
    driver_text,
    fact_text,
    limits_note,
    processor,
    software,
)
from epochtop.tui.machine.gpu_rows import LABEL, fact_rows, gpu_rows, heading
from epochtop.tui.machine.view import MachineView
from epochtop.tui.state.telemetry import RunTelemetry

TWO_COLUMNS = 110
"""Minimum width for processor and GPU next to each other."""
GAP = 3
"""Blank cells between the columns."""
TALLEST = 16
"""Rows of the highest graph."""
FINDING_ROLES: dict[FindingKind, int] = {"problem": BAD, "fix": TEXT, "fine": STRONG}


def sheet(view: MachineView, width: int, height: int = 0) -> list[Row]:
    """Every row at `width`. Graphs get the rows that would be free in `height`."""
    if view.machine is None:
        return [row(("reading the machine …", QUIET))]
    rows = _one_column(view, width) if width < TWO_COLUMNS else _two_columns(view, width, height)
    return [recolored(line, STALE) for line in rows] if view.stale else rows


def _one_column(view: MachineView, width: int) -> list[Row]:
    sections = (host_rows(view, width), gpu_rows(view, width), software_rows(view, width))
    rows = [line for section in sections if section for line in (*section, EMPTY)]
    return [*rows[:-1], *run_rows(view, width)]


def _two_columns(view: MachineView, width: int, height: int) -> list[Row]:
    left_width = (width - GAP) // 2
    right_width = width - GAP - left_width
    software_is_left = view.gpu is not None  # else the column of the processor is the longer one

    def below(column: int, graph_rows: int) -> list[Row]:
        return [EMPTY, *software_rows(view, column), *run_rows(view, column, graph_rows)]

    def left(graph_rows: int) -> list[Row]:
        rows = host_rows(view, left_width, graph_rows)
        return [*rows, *below(left_width, graph_rows)] if software_is_left else rows

    def right(graph_rows: int) -> list[Row]:
        rows = gpu_rows(view, right_width, graph_rows)
        return rows if software_is_left else [*rows, *below(right_width, graph_rows)]

    columns = _stretched(left, height), _stretched(right, height)
    return [joined(*pair, left_width + GAP) for pair in zip_longest(*columns, fillvalue=EMPTY)]


def _stretched(make: Callable[[int], list[Row]], height: int) -> list[Row]:
    """The rows with the highest graphs with which they fit into `height`. `make` gets the rows of a graph."""
    flat, low = make(0), make(2)
    more = (len(low) - len(flat)) // 2
    if not more or len(low) > height:
        return flat
    return make(min(TALLEST, 2 + (height - len(low)) // more))


# --- host -------------------------------------------------------------------------------------------------


def host_rows(view: MachineView, width: int, graph_rows: int = 0) -> list[Row]:
    """Processor, memory and the engine. Graphs have `graph_rows` rows of their own."""
    machine, cpu = view.machine, view.machine.cpu if view.machine else None
    assert machine is not None
    assert cpu is not None
    rows = [heading("Processor", width), *fact_rows("Model", processor(machine), width)]
    if cpu.microarchitecture.value is None:
        rows += fact_rows("Design", fact_text(cpu.microarchitecture), width, QUIET)
    rows += fact_rows("Generation", fact_text(cpu.generation), width, _role(cpu.generation))
    if cpu.advice:
        rows += fact_rows("Advice", cpu.advice, width, BAD)
    sockets = f"{cpu.sockets.value} socket{'s' * (cpu.sockets.value != 1)} · " if cpu.sockets.value else ""
    rows += fact_rows("Cores", sockets + cores_and_threads(machine, 999), width)
    if note := limits_note(machine):
        rows += fact_rows("Limits", note, width)
    rows += fact_rows("Clock", clocks(machine), width)
    vectors = cpu.vector_instructions
    instructions = ", ".join(vectors.value) if vectors.value else f"{UNKNOWN} {vectors.reason}"
    rows += fact_rows("Instructions", instructions, width)
    rows += fact_rows("Caches", caches(machine), width)
    rows += fact_rows("Good for", cpu_meaning(machine), width, STRONG)
    return [*rows, *host_gauges(view, machine, width, graph_rows)]


def host_gauges(view: MachineView, machine: Machine, width: int, graph_rows: int) -> list[Row]:
    """The last two minutes of CPUs, memory, swap and the engine's process."""
    gauges = _host_gauges(view, machine)
    column = max(gauge.width for gauge in gauges)
    cpu, *others = (gauge.rows(width, column, graph_rows, LABEL) for gauge in gauges)
    rows = [*cpu, *core_rows(view, width), *(line for lines in others for line in lines)]
    if view.sample and view.sample.swap_total_bytes.value is None:
        rows += fact_rows("Swap", fact_text(view.sample.swap_total_bytes), width, QUIET)
    return rows


def _host_gauges(view: MachineView, machine: Machine) -> Sequence[Gauge]:
    sample, histories = view.sample, view.histories
    load = sample.cpu_percent if sample else Fact[float](reason="")
    used = sample.memory_used_bytes if sample else None
    gauges = [
        histories.gauge("CPU", "cpu", (percent(load), f" {machine.usable_cpus} CPUs")),
        histories.gauge("Memory", "memory", (used_of(used, machine.usable_memory_bytes),)),
    ]
    if sample and sample.swap_total_bytes.value:
        swap = used_of(sample.swap_used_bytes.value, sample.swap_total_bytes.value)
        gauges.append(histories.gauge("Swap", "swap", (swap,)))
    if sample and sample.engine:
        engine = sample.engine
        memory = format_bytes(engine.memory_bytes.value) if engine.memory_bytes.value is not None else ""
        numbers = (percent(engine.cpu_percent), f"{memory:>9}")
        reason = engine.memory_bytes.reason
        gauges.append(histories.gauge("Engine", "engine", numbers, reason))
    return gauges


def core_rows(view: MachineView, width: int) -> list[Row]:
    """A block character per CPU that this process may run on."""
    loads = graph(core.percent for core in view.sample.core_percents) if view.sample else ""
    room = max(1, width - LABEL)
    lines = [loads[start : start + room] for start in range(0, len(loads), room)]
    return captioned("Each CPU", lines, LABEL, GRAPH)


def _role(fact: AnyFact) -> int:
    return TEXT if fact.value is not None else QUIET


# --- software ---------------------------------------------------------------------------------------------


def software_rows(view: MachineView, width: int) -> list[Row]:
    """Python, torch, CUDA, cuDNN and driver, and which versions are incompatible."""
    machine, ready = view.machine, view.ready
    assert machine is not None
    rows = [heading("Software", width)]
    if ready is None and view.starts_engines:
        rows += fact_rows("torch", f"{UNKNOWN} not reported by the engine yet", width, QUIET)
    for label, text in software(ready) if ready else ():
        rows += fact_rows(label, text, width)
    if driver := driver_text(machine):
        rows += fact_rows("Driver", driver, width)
    for label, text, kind in compatibility(machine, ready) if ready else ():
        rows += fact_rows(label, text, width, FINDING_ROLES[kind])
    return rows if len(rows) > 1 else []


# --- run --------------------------------------------------------------------------------------------------


def run_rows(view: MachineView, width: int, graph_rows: int = 0) -> list[Row]:
    """How busy the device was during the run on the screen. Graphs have `graph_rows` rows."""
    run, rows = view.run, [EMPTY, heading("Displayed run", width)]
    if run is None or not run.count:
        return []
    cpus = 100.0 * (view.machine.usable_cpus if view.machine else 1)
    for label, name, full in (("GPU load", "gpu_percent", 100.0), ("Engine CPU", "engine_cpu_percent", cpus)):
        if run.figures[name].mean is not None:
            rows += captioned(label, run_graph(run, name, full, width - LABEL, graph_rows), LABEL, GRAPH)
    rows += fact_rows("Summary", run.summary(), width)
    return [*rows, *(fact_rows("Memory", view.run_memory, width) if view.run_memory else [])]


def run_graph(run: RunTelemetry, name: str, full: float, room: int, graph_rows: int = 0) -> list[str]:
    """The whole run, with its beginning at the left. `full` is the value of a full block."""
    percents = [None if value is None else 100 * value / full for value in run.history(name, room)]
    return tall_graph(percents, len(percents), graph_rows) if graph_rows > 1 else [graph(percents)]
