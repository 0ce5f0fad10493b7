"""The rows of the full page about a machine: everything, with its meaning and with the reason for what is unknown.

Pure functions of facts, so a test reads characters. Must not import Textual.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from epochtop.engine.hardware import Fact, Machine, cpu_meaning, software_fit
from epochtop.engine.protocol.quantities import format_bytes, format_gib
from epochtop.engine.protocol.requests import Ready
from epochtop.tui.cells.gauges import UNKNOWN, Gauge, Row, Span, graph, percent, used_of
from epochtop.tui.machine.fact_rows import LABEL, fact_rows, heading, told
from epochtop.tui.machine.gpu_rows import gpu_rows
from epochtop.tui.machine.rows import cores_and_threads, processor
from epochtop.tui.machine.view import MachineView
from epochtop.tui.state.telemetry import RunTelemetry

TWO_COLUMNS = 110
"""From this width on processor and GPU stand side by side."""
GAP = 3


def sheet(view: MachineView, width: int) -> list[Row]:
    """Every row at `width`."""
    if view.machine is None:
        return [(Span("reading the machine …", "unknown"),)]
    if width < TWO_COLUMNS:
        return [
            *host_rows(view, width),
            (),
            *gpu_rows(view, width),
            (),
            *software_rows(view, width),
            *run_rows(view, width),
        ]
    left_width = (width - GAP) // 2
    right_width = width - GAP - left_width
    left, right = host_rows(view, left_width), gpu_rows(view, right_width)
    if view.gpu is None:  # there is room beside the processor
        right += [(), *software_rows(view, right_width), *run_rows(view, right_width)]
    else:
        left += [(), *software_rows(view, left_width), *run_rows(view, left_width)]
    return [_side_by_side(one, other, left_width) for one, other in zip_longest(left, right, fillvalue=())]


def _side_by_side(left: Row, right: Row, width: int) -> Row:
    room = width + GAP - sum(len(span.text) for span in left)
    return (*left, Span(" " * room, "label"), *right) if right else left


# --- host -------------------------------------------------------------------------------------------------


def host_rows(view: MachineView, width: int) -> list[Row]:
    """Processor, memory and the engine."""
    machine, cpu = view.machine, view.machine.cpu if view.machine else None
    assert machine is not None
    assert cpu is not None
    rows = [heading("Processor", width), *fact_rows("Model", processor(machine), width)]
    rows += fact_rows("Generation", told(cpu.generation), width, _style(cpu.generation))
    sockets = f"{cpu.sockets.value} socket{'s' * (cpu.sockets.value != 1)} · " if cpu.sockets.value else ""
    rows += fact_rows("Cores", sockets + cores_and_threads(machine, 999), width)
    if note := limits_note(machine):
        rows += fact_rows("Limits", note, width)
    rows += fact_rows("Clock", clocks(machine), width)
    vectors = cpu.vector_instructions
    rows += fact_rows(
        "Instructions", ", ".join(vectors.value) if vectors.value else told(Fact[str](reason=vectors.reason)), width
    )
    rows += fact_rows("Caches", caches(machine), width)
    rows += fact_rows("Good for", cpu_meaning(machine), width, "good")
    return [*rows, *host_gauges(view, machine, width)]


def limits_note(machine: Machine) -> str:
    """A plain word where a container or a batch system lends less than the host has; empty where it does not."""
    lent = []
    if machine.usable_cpus_reason:
        lent.append(f"{machine.usable_cpus} of {machine.cpu.threads} threads ({machine.usable_cpus_reason})")
    if machine.usable_memory_reason:
        total, usable = format_gib(machine.memory_bytes), format_gib(machine.usable_memory_bytes)
        lent.append(f"{usable} of {total} GiB memory ({machine.usable_memory_reason})")
    if not lent:
        return ""
    kind = machine.container
    return f"this {f'{kind} container' if kind not in ('', 'container') else 'container or job'} may use {' and '.join(lent)}"


def clocks(machine: Machine) -> str:
    """`2.5 GHz base · 3.9 GHz at most`."""
    base, most = machine.cpu.base_clock_mhz, machine.cpu.max_clock_mhz
    if base.value is None and most.value is None:
        return f"{UNKNOWN} {base.reason}"
    said = [f"{fact.value / 1000:.1f} GHz {name}" for name, fact in (("base", base), ("at most", most)) if fact.value]
    return " · ".join(said)


def caches(machine: Machine) -> str:
    """`L1 2 × 32 KiB data, 2 × 32 KiB instruction · L3 35.8 MiB`."""
    known = machine.cpu.caches
    if not known.value:
        return f"{UNKNOWN} {known.reason}"
    levels: dict[int, list[str]] = {}
    for cache in known.value:
        times = f"{cache.count} × " if cache.count > 1 else ""
        kind = "" if cache.kind == "unified" else f" {cache.kind}"
        levels.setdefault(cache.level, []).append(f"{times}{format_bytes(cache.size_bytes)}{kind}")
    return " · ".join(f"L{level} {', '.join(each)}" for level, each in levels.items())


def host_gauges(view: MachineView, machine: Machine, width: int) -> list[Row]:
    """Two minutes of CPUs, memory, swap and the engine's process."""
    sample, histories = view.sample, view.histories
    load = sample.cpu_percent if sample else Fact[float](reason="")
    used = sample.memory_used_bytes if sample else None
    gauges = [
        Gauge("CPU", lambda room: histories.graph("cpu", room), (percent(load), f" {machine.usable_cpus} CPUs")),
        Gauge("Memory", lambda room: histories.graph("memory", room), (used_of(used, machine.usable_memory_bytes),)),
    ]
    if sample and sample.swap_total_bytes.value:
        swap = used_of(sample.swap_used_bytes.value, sample.swap_total_bytes.value)
        gauges.append(Gauge("Swap", lambda room: histories.graph("swap", room), (swap,)))
    if sample and sample.engine:
        engine = sample.engine
        memory = format_bytes(engine.memory_bytes.value) if engine.memory_bytes.value is not None else ""
        numbers = (percent(engine.cpu_percent), f"{memory:>9}")
        reason = engine.memory_bytes.reason
        gauges.append(Gauge("Engine", lambda room: histories.graph("engine", room), numbers, reason))
    column = max(gauge.width for gauge in gauges)
    rows = [gauge.row(width, column, LABEL) for gauge in gauges]
    rows[1:1] = core_rows(view, width)
    if sample and sample.swap_total_bytes.value is None:
        rows += fact_rows("Swap", told(sample.swap_total_bytes), width, "unknown")
    return rows


def core_rows(view: MachineView, width: int) -> list[Row]:
    """One block a CPU that this process may run on."""
    loads = graph(core.percent for core in view.sample.core_percents) if view.sample else ""
    room = max(1, width - LABEL)
    return [
        (Span(("" if start else "Each CPU").ljust(LABEL), "label"), Span(loads[start : start + room], "graph"))
        for start in range(0, len(loads), room)
    ]


def _style(fact: Fact[str] | Fact[int] | Fact[float]) -> str:
    return "value" if fact.value is not None else "unknown"


# --- software ---------------------------------------------------------------------------------------------


def software_rows(view: MachineView, width: int) -> list[Row]:
    """Python, torch, CUDA, cuDNN and driver, and what of it does not fit."""
    rows = [heading("Software", width)]
    machine, ready = view.machine, view.ready
    assert machine is not None
    if ready is None:
        rows += fact_rows("torch", f"{UNKNOWN} the engine has not told yet", width, "unknown")
    else:
        for label, text in software(ready):
            rows += fact_rows(label, text, width)
    if machine.gpus or machine.driver_version.value:
        rows += fact_rows(
            "Driver", f"{told(machine.driver_version)} · runs CUDA up to {told(machine.cuda_version)}", width
        )
    return [*rows, *_findings(machine, ready, width)] if ready else rows


def software(ready: Ready) -> Iterable[tuple[str, str]]:
    """Label and words of each program that a standby has told of."""
    yield "Python", ready.python_version or UNKNOWN
    built = (
        f"CUDA {ready.cuda_version}"
        if ready.cuda_version
        else f"ROCm {ready.hip_version}"
        if ready.hip_version
        else "the CPU only"
    )
    yield "torch", f"{ready.torch_version}, built for {built}"
    yield "cuDNN", cudnn(ready.cudnn_version) if ready.cudnn_version else f"{UNKNOWN} this torch has none"
    yield "Devices", ", ".join(f"{device.device} ({device.name})" for device in ready.devices)


def cudnn(version: int) -> str:
    """`9.1.0` of 90100, `8.0.5` of 8005."""
    major = version // 10_000 if version >= 10_000 else version // 1000
    rest = version - major * (10_000 if version >= 10_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _findings(machine: Machine, ready: Ready, width: int) -> list[Row]:
    found = software_fit(ready, machine)
    if not found:
        return fact_rows("Fit", "all of it fits together", width, "good")
    rows = []
    for finding in found:
        rows += fact_rows("Does not fit", finding.text, width, "bad")
        rows += fact_rows("mend it with", finding.command, width) if finding.command else []
    return rows


# --- run --------------------------------------------------------------------------------------------------


def run_rows(view: MachineView, width: int) -> list[Row]:
    """How busy the device was during the run on the screen."""
    if view.run is None or not view.run.count:
        return []
    rows = [(), heading("The run on the screen", width)]
    room = width - LABEL
    for label, name, most in (("GPU load", "gpu_percent", 100.0), ("Engine CPU", "engine_cpu_percent", _cpus(view))):
        if view.run.figures[name].mean is not None:
            rows.append((Span(label.ljust(LABEL), "label"), Span(run_graph(view.run, name, most, room), "graph")))
    rows += fact_rows("In all", view.run.summary(), width)
    return [*rows, *(fact_rows("Memory", view.run_memory.removeprefix("memory: "), width) if view.run_memory else [])]


def _cpus(view: MachineView) -> float:
    return 100.0 * (view.machine.usable_cpus if view.machine else 1)


def run_graph(run: RunTelemetry, name: str, most: float, room: int) -> str:
    """The whole run, from its beginning on the left."""
    return graph(None if value is None else 100 * value / most for value in run.history(name, room))
