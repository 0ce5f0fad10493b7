"""The rows of the full page about the GPU that is looked at, and why there is none where there is none."""

from __future__ import annotations

from epochtop.engine.hardware import Fact, Gpu, GpuProcess, GpuSample, Machine, gpu_meaning
from epochtop.engine.protocol.quantities import format_bytes, format_gib
from epochtop.tui.cells.gauges import (
    UNKNOWN,
    Gauge,
    Row,
    Span,
    celsius,
    cut,
    megabytes_a_second,
    megahertz,
    percent,
    used_of,
    watts,
)
from epochtop.tui.machine.fact_rows import LABEL, fact_rows, heading, told
from epochtop.tui.machine.rows import gpus_are_old
from epochtop.tui.machine.view import MachineView

NOT_READ = "not read on this vendor"


def gpu_rows(view: MachineView, width: int) -> list[Row]:
    """Identity, gauges and processes of the selected GPU, then devices of other makers."""
    machine, gpu = view.machine, view.gpu
    assert machine is not None
    if gpu is None:
        rows = [heading("GPU", width)]
        rows += fact_rows("NVIDIA", f"{UNKNOWN} {machine.no_gpu_reason}", width, "unknown")
    else:
        several = f" · {view.selected + 1} of {len(machine.gpus)}, ← → for the others" if len(machine.gpus) > 1 else ""
        rows = [heading(f"GPU {gpu.index}{several}", width)]
        rows += fact_rows("Good for", gpu_meaning(gpu, machine.usable_memory_bytes), width, "good")
        sample = next((one for one in view.sample.gpus if one.index == gpu.index), None) if view.sample else None
        if sample is not None:
            rows += [*gauges(view, gpu, sample, width), *details(sample, width), *process_rows(sample, width)]
            if gpus_are_old(view.sample) and view.sample:
                old = f"the driver has not answered for {view.sample.gpu_age_s:.0f} s; these figures are old"
                rows += fact_rows("Stale", old, width, "bad")
        rows += identity(gpu, machine, width)
    return [*rows, *other_rows(view, machine, width)]


# --- what it is -------------------------------------------------------------------------------------------


def identity(gpu: Gpu, machine: Machine, width: int) -> list[Row]:
    """Everything that does not change."""
    rows: list[Row] = []
    for label, text in identity_words(gpu, machine):
        rows += fact_rows(label, text, width)
    return rows


def identity_words(gpu: Gpu, machine: Machine) -> list[tuple[str, str]]:
    """Label and words of every fact about what a card is."""
    reading = gpu.reading
    kind = (
        " · ".join(filter(None, (reading.market, reading.tier, *reading.suffix)))
        if reading.is_known
        else "not in the table"
    )
    architecture = gpu.architecture.value or reading.architecture or told(gpu.architecture)
    tensor = f"{told(gpu.multiprocessors)} multiprocessors · {told(gpu.cuda_cores)} cores"
    words = [
        ("Name", told(gpu.name)),
        ("Kind", kind),
        ("Architecture", f"{architecture} · compute capability {told(gpu.compute_capability)}"),
        ("Chip", tensor),
        ("Memory", memory_words(gpu)),
        ("PCIe", f"generation {told(gpu.pcie_generation_max)}, {told(gpu.pcie_width_max)} lanes at most"),
        (
            "Power limit",
            f"{told(gpu.power_limit_default_w, 'W')} by default, {told(gpu.power_limit_max_w, 'W')} at most",
        ),
        ("Modes", modes(gpu)),
        ("Numbers", numbers(gpu, machine)),
        ("UUID", told(gpu.uuid)),
    ]
    return [*words, ("MIG", mig_words(gpu))]


def memory_words(gpu: Gpu) -> str:
    """`80.0 GiB HBM3 · 5120 bit · 3,352 GB/s`."""
    size = f"{format_gib(gpu.memory_bytes.value)} GiB" if gpu.memory_bytes.value is not None else told(gpu.memory_bytes)
    kind = f" {gpu.memory_type.value}" if gpu.memory_type.value else " (type: not reported by NVML)"
    return f"{size}{kind} · bus {told(gpu.memory_bus_bits, 'bit')} · {told(gpu.memory_bandwidth_gbs, 'GB/s')}"


def modes(gpu: Gpu) -> str:
    """`ECC on · persistence off · compute mode default`."""
    said = [f"{name} {_on_off(fact)}" for name, fact in (("ECC", gpu.ecc), ("persistence", gpu.persistence))]
    return " · ".join([*said, f"compute mode {told(gpu.compute_mode)}"])


def _on_off(fact: Fact[bool]) -> str:
    return f"{UNKNOWN} {fact.reason}" if fact.value is None else "on" if fact.value else "off"


def numbers(gpu: Gpu, machine: Machine) -> str:
    """Its index in NVML's and in CUDA's order, and what this environment says of that."""
    cuda = f"cuda:{gpu.cuda_index.value}" if gpu.cuda_index.value is not None else f"{UNKNOWN} {gpu.cuda_index.reason}"
    visible = f" · CUDA_VISIBLE_DEVICES={machine.visible_devices!r}" if machine.visible_devices is not None else ""
    return f"NVML {gpu.index} · torch {cuda}{visible}"


def mig_words(gpu: Gpu) -> str:
    """The slices of a card, or why there are none."""
    slices = gpu.mig_devices
    if slices.value is None:
        return f"{UNKNOWN} {slices.reason}"
    return (
        "; ".join(
            f"{told(one.name)}, {format_bytes(one.memory_bytes.value)}, "
            f"{told(one.multiprocessors)} multiprocessors, {told(one.uuid)}"
            for one in slices.value
        )
        or "on, but no slice is made"
    )


# --- how busy it is ---------------------------------------------------------------------------------------


def gauges(view: MachineView, gpu: Gpu, sample: GpuSample, width: int) -> list[Row]:
    """Two minutes of every figure that has a graph."""
    index, old = gpu.index, view.stale or gpus_are_old(view.sample)

    def one(label: str, name: str, numbers: str, reason: str = "") -> Gauge:
        return Gauge(label, lambda room: view.histories.graph((name, index), room), (numbers,), reason, old)

    used, total = sample.memory_used_bytes, sample.memory_total_bytes
    memory = used_of(used.value, total.value) if total.value else ""
    limit = gpu.temperature_limit_c
    slow = f" slows at {limit.value:.0f}" if limit.value is not None else ""
    found = [
        one("Load", "gpu", percent(sample.utilization_percent), sample.utilization_percent.reason),
        one("SM busy", "sm", percent(sample.sm_percent), sample.sm_percent.reason),
        one("Tensor cores", "tensor", percent(sample.tensor_percent), sample.tensor_percent.reason),
        one("DRAM busy", "dram", percent(sample.dram_percent), sample.dram_percent.reason),
        one("Memory used", "gpu memory", memory, used.reason or total.reason),
        one("Temperature", "temperature", celsius(sample.temperature_c) + slow, sample.temperature_c.reason),
        one("Power", "power", watts(sample.power_w, sample.power_limit_w, True), sample.power_w.reason),
        one("SM clock", "clock", megahertz(sample.sm_clock_mhz, gpu.sm_clock_max_mhz), sample.sm_clock_mhz.reason),
        one("Fan", "fan", percent(sample.fan_percent), sample.fan_percent.reason),
        one("PCIe sent", "sent", megabytes_a_second(sample.pcie_sent_kbs), sample.pcie_sent_kbs.reason),
        one("PCIe recv.", "received", megabytes_a_second(sample.pcie_received_kbs), sample.pcie_received_kbs.reason),
        one("NVLink sent", "link sent", megabytes_a_second(sample.nvlink_sent_kbs), sample.nvlink_sent_kbs.reason),
        one("NVLink recv.", "link received", megabytes_a_second(sample.nvlink_received_kbs), sample.nvlink_received_kbs.reason),
    ]  # fmt: skip
    column = max(gauge.width for gauge in found)
    rows = []
    for gauge in found:
        if gauge.reason:  # words need the room of a graph and its numbers
            rows += fact_rows(gauge.label, f"{UNKNOWN} {gauge.reason}", width, "unknown")
        else:
            rows.append(gauge.row(width, column, LABEL))
        if gauge.label == "Load" and sample.sm_percent.value is None:
            note = "load is the share of time in which some kernel ran, however little of the card it used"
            rows += fact_rows("", note, width, "label")
    return rows


def details(sample: GpuSample, width: int) -> list[Row]:
    """What is said in words: what slows it, the link now, errors, memory set apart."""
    slowed = sample.slowed_by
    if slowed.value is None:
        rows = fact_rows("Slowed by", f"{UNKNOWN} {slowed.reason}", width, "unknown")
    else:
        words, style = (", ".join(slowed.value), "bad") if slowed.value else ("nothing", "value")
        rows = fact_rows("Slowed by", words, width, style)
    link = f"generation {told(sample.pcie_generation)}, {told(sample.pcie_width)} lanes now (fewer while idle)"
    rows += fact_rows("Link", link, width)
    errors = f"{told(sample.ecc_corrected)} corrected, {told(sample.ecc_uncorrected)} not corrected since the driver was loaded"
    style = "bad" if sample.ecc_uncorrected.value else "value"
    same = sample.ecc_corrected.value is None and sample.ecc_corrected == sample.ecc_uncorrected
    rows += fact_rows("ECC errors", told(sample.ecc_corrected) if same else errors, width, style)
    kept = sample.memory_reserved_bytes
    text = f"{format_bytes(kept.value)} by the driver, not counted as used" if kept.value is not None else told(kept)
    return [*rows, *fact_rows("Reserved", text, width), *_memory_clock(sample, width)]


def _memory_clock(sample: GpuSample, width: int) -> list[Row]:
    return fact_rows("Memory clock", told(sample.memory_clock_mhz, "MHz"), width)


def process_rows(sample: GpuSample, width: int) -> list[Row]:
    """A line a process, or why they are not known."""
    processes = sample.processes
    if not processes.value:
        text = f"{UNKNOWN} {processes.reason}" if processes.value is None else "none"
        return fact_rows("Processes", text, width, "value" if processes.value is not None else "unknown")
    rows: list[Row] = [(Span(cut("Processes        pid  user       memory  command", width), "label"),)]
    return rows + [(Span(cut(process_line(process), width)),) for process in processes.value]


def process_line(process: GpuProcess) -> str:
    """Pid, user, memory, command in columns; a dash and the reason for what cannot be seen from here."""
    user = process.user.value or UNKNOWN
    memory = format_bytes(process.memory_bytes.value) if process.memory_bytes.value is not None else UNKNOWN
    command = process.command.value or f"{UNKNOWN} {process.command.reason}"
    return f"{'':>12}{process.pid:>8}  {user[:8]:<8} {memory:>9}  {command}"


# --- other makers -----------------------------------------------------------------------------------------


def other_rows(view: MachineView, machine: Machine, width: int) -> list[Row]:
    """What torch and the bus know of GPUs that NVML does not count."""
    rows: list[Row] = []
    nvidia = {gpu.uuid.value for gpu in machine.gpus}
    for device in view.ready.devices if view.ready else ():
        if (
            device.device != "cpu"
            and not (device.uuid and device.uuid in nvidia)
            and not (device.uuid and machine.gpus)
        ):
            memory = f" · {format_bytes(device.memory_bytes)}" if device.memory_bytes else ""
            rows += fact_rows(device.device, f"{device.name}{memory} · load, temperature, power: {NOT_READ}", width)
    if not rows:
        for other in machine.other_gpus:
            rows += fact_rows(other.vendor, f"a GPU at {other.address} · {NOT_READ}", width, "unknown")
    return rows
