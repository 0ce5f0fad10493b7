"""The GPU rows of the full page: one GPU at a time, or why there is none.

Pure functions of facts, so that tests read characters. Never imports Textual.
"""

from __future__ import annotations

from collections.abc import Iterator

from epochtop.engine.hardware import Gpu, GpuProblem, GpuSample, Machine, gpu_meaning
from epochtop.engine.protocol.quantities import UNKNOWN, format_bytes
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.gauges import (
    Gauge,
    celsius,
    megabytes_per_second,
    megahertz,
    percent,
    used_of,
    watts,
)
from epochtop.tui.cells.rows import BAD, HEADING, QUIET, STRONG, TEXT, captioned, cut, row, wrapped_lines
from epochtop.tui.machine.facts import (
    KERNEL_NOTE,
    NOT_READ,
    ecc_errors,
    fact_text,
    gpus_are_old,
    health_text,
    identity_texts,
    problem_texts,
    process_line,
)
from epochtop.tui.machine.view import MachineView

LABEL = 13
"""Width of the page's labels."""
MOST_LINES = 6
"""Rows that a text takes at most."""


def heading(text: str, width: int) -> Row:
    """A section's name."""
    return row((cut(f"── {text} ".ljust(width, "─"), width), HEADING))


def fact_rows(label: str, text: str, width: int, role: int = TEXT) -> list[Row]:
    """A label and a text, in as many rows as it needs."""
    return captioned(label, wrapped_lines(text, width - LABEL, MOST_LINES) or [UNKNOWN], LABEL, role)


def gpu_rows(view: MachineView, width: int, graph_rows: int = 0) -> list[Row]:
    """Identity, gauges and processes of the selected GPU, then the GPUs of other vendors. Graphs have `graph_rows` rows."""
    machine, gpu = view.machine, view.gpu
    assert machine is not None
    if gpu is None:
        rows = [heading("GPU", width)]
        rows += fact_rows("NVIDIA", f"{UNKNOWN} {machine.no_gpu_reason}", width, QUIET)
    else:
        count = len(machine.gpus)
        position = f" · {view.selected + 1} of {count}, ← → to switch" if count > 1 else ""
        rows = [heading(f"GPU {gpu.index}{position}", width)]
        problems = gpu_problems(view, gpu)
        is_usable = not any(problem.is_fatal for problem in problems)
        meaning = gpu_meaning(gpu, machine.usable_memory_bytes, problems)
        rows += fact_rows("Good for" if is_usable else "State", meaning, width, STRONG if is_usable else BAD)
        for label, text in problem_texts(problems):
            rows += fact_rows(label, text, width, BAD)
        rows += _load_rows(view, gpu, width, graph_rows)
        for label, text in identity_texts(gpu, machine):
            rows += fact_rows(label, text, width)
    return [*rows, *other_rows(view, machine, width)]


def gpu_problems(view: MachineView, gpu: Gpu) -> tuple[GpuProblem, ...]:
    """The current problems of a GPU, or those at its identification without a sample."""
    sample = next((sample for sample in view.sample.gpus if sample.index == gpu.index), None) if view.sample else None
    return sample.problems if sample else gpu.problems


# --- load -------------------------------------------------------------------------------------------------


def _load_rows(view: MachineView, gpu: Gpu, width: int, graph_rows: int) -> list[Row]:
    """How busy a GPU is; nothing without a sample of it."""
    sample = next((sample for sample in view.sample.gpus if sample.index == gpu.index), None) if view.sample else None
    if view.sample is None or sample is None:
        return []
    rows = [*gauge_rows(view, gpu, sample, width, graph_rows), *details(sample, width), *process_rows(sample, width)]
    if gpus_are_old(view.sample):
        note = f"no response from the driver for {view.sample.gpu_age_s:.0f} s; these figures are out of date"
        rows += fact_rows("Stale", note, width, BAD)
    return rows


def gauge_rows(view: MachineView, gpu: Gpu, sample: GpuSample, width: int, graph_rows: int = 0) -> list[Row]:
    """The last two minutes of every figure that has a graph."""
    gauges = list(_gauges(view, gpu, sample))
    column = max(gauge.width for gauge in gauges)
    rows = []
    for gauge in gauges:
        if gauge.reason:  # a reason needs the space of graph and numbers
            rows += fact_rows(gauge.label, f"{UNKNOWN} {gauge.reason}", width, QUIET)
        else:
            rows += gauge.rows(width, column, graph_rows, LABEL)
        if gauge.label == LOAD and sample.sm_percent.value is None:
            rows += fact_rows("", f"load {KERNEL_NOTE}", width, QUIET)
    return rows


LOAD = "Load"
"""Label of the gauge that needs an explanation on GPUs that do not report busy multiprocessors."""


def _gauges(view: MachineView, gpu: Gpu, sample: GpuSample) -> Iterator[Gauge]:
    old = view.stale or gpus_are_old(view.sample)

    def gauge(label: str, name: str, numbers: str, reason: str = "") -> Gauge:
        return view.histories.gauge(label, (name, gpu.index), (numbers,), reason, old)

    used, total = sample.memory_used_bytes, sample.memory_total_bytes
    memory = used_of(used.value, total.value) if total.value else ""
    limit = gpu.temperature_limit_c
    slow = f" slows at {limit.value:.0f}" if limit.value is not None else ""
    yield gauge(LOAD, "gpu", percent(sample.utilization_percent), sample.utilization_percent.reason)
    yield gauge("SM busy", "sm", percent(sample.sm_percent), sample.sm_percent.reason)
    yield gauge("Tensor cores", "tensor", percent(sample.tensor_percent), sample.tensor_percent.reason)
    yield gauge("DRAM busy", "dram", percent(sample.dram_percent), sample.dram_percent.reason)
    yield gauge("Memory used", "gpu memory", memory, used.reason or total.reason)
    yield gauge("Temperature", "temperature", celsius(sample.temperature_c) + slow, sample.temperature_c.reason)
    yield gauge("Power", "power", watts(sample.power_w, sample.power_limit_w, True), sample.power_w.reason)
    yield gauge("SM clock", "clock", megahertz(sample.sm_clock_mhz, gpu.sm_clock_max_mhz), sample.sm_clock_mhz.reason)
    yield gauge("Fan", "fan", percent(sample.fan_percent), sample.fan_percent.reason)
    for label, name, rate in (
        ("PCIe sent", "sent", sample.pcie_sent_kbs),
        ("PCIe recv.", "received", sample.pcie_received_kbs),
        ("NVLink sent", "link sent", sample.nvlink_sent_kbs),
        ("NVLink recv.", "link received", sample.nvlink_received_kbs),
    ):
        yield gauge(label, name, megabytes_per_second(rate), rate.reason)


def details(sample: GpuSample, width: int) -> list[Row]:
    """Figures without a graph: what slows the GPU down, its link, errors, reserved memory, memory clock."""
    slowed = sample.slowed_by
    if slowed.value is None:
        rows = fact_rows("Slowed by", f"{UNKNOWN} {slowed.reason}", width, QUIET)
    else:
        rows = fact_rows("Slowed by", ", ".join(slowed.value) or "nothing", width, BAD if slowed.value else TEXT)
    link = f"generation {fact_text(sample.pcie_generation)}, {fact_text(sample.pcie_width)} lanes now (fewer when idle)"
    rows += fact_rows("Link", link, width)
    rows += fact_rows("ECC errors", ecc_errors(sample), width, BAD if sample.ecc_uncorrected.value else TEXT)
    rows += fact_rows("Health", health_text(sample), width)
    reserved = sample.memory_reserved_bytes
    note = "by the driver, not counted as used"
    text = fact_text(reserved) if reserved.value is None else f"{format_bytes(reserved.value)} {note}"
    rows += fact_rows("Reserved", text, width)
    return [*rows, *fact_rows("Memory clock", fact_text(sample.memory_clock_mhz, "MHz"), width)]


def process_rows(sample: GpuSample, width: int) -> list[Row]:
    """A line per process, or why they are unknown."""
    processes = sample.processes
    if processes.value is None:
        return fact_rows("Processes", f"{UNKNOWN} {processes.reason}", width, QUIET)
    if not processes.value:
        return fact_rows("Processes", "none", width)
    title = row((cut("Processes        pid  user       memory  command", width), QUIET))
    return [title, *(row((cut(process_line(process), width), TEXT)) for process in processes.value)]


# --- other vendors ----------------------------------------------------------------------------------------


def other_rows(view: MachineView, machine: Machine, width: int) -> list[Row]:
    """GPUs that torch or the bus reports and NVML does not."""
    rows: list[Row] = []
    nvidia = {gpu.uuid.value for gpu in machine.gpus}
    for device in view.ready.devices if view.ready else ():
        is_nvidia = bool(device.uuid) and (device.uuid in nvidia or bool(machine.gpus))
        if device.device != "cpu" and not is_nvidia:
            memory = f" · {format_bytes(device.memory_bytes)}" if device.memory_bytes else ""
            rows += fact_rows(device.device, f"{device.name}{memory} · load, temperature, power: {NOT_READ}", width)
    if not rows:
        for other in machine.other_gpus:
            rows += fact_rows(other.vendor, f"GPU at {other.address} · {NOT_READ}", width, QUIET)
    return rows
