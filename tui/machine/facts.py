"""A machine's facts in words: one wording for the panel, the full page and `epochtop hardware`.

Pure functions of facts, so that tests read characters. Never imports Textual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from epochtop.engine.hardware import Fact, Gpu, GpuProblem, GpuProcess, GpuSample, Machine, Sample, software_fit
from epochtop.engine.protocol.quantities import UNKNOWN, format_bytes, format_gib, plural
from epochtop.engine.protocol.requests import Ready

NOT_READ = "not read for this vendor"
GPU_STALE_S = 3.0
"""Age in seconds from which GPU figures count as out of date: the driver does not respond."""
KERNEL_NOTE = "is the percentage of time with a kernel running, however small the kernel"

FindingKind = Literal["problem", "fix", "fine"]
AnyFact = Fact[str] | Fact[int] | Fact[float]


def fact_text(fact: AnyFact, unit: str = "") -> str:
    """A value with its unit, or a dash and the reason."""
    if fact.value is None:
        return f"{UNKNOWN} {fact.reason}"
    if isinstance(fact.value, str):
        return fact.value
    return f"{fact.value:,.0f}{f' {unit}' if unit else ''}"


def short_text(fact: Fact[str]) -> str:
    """A value, or a dash without the reason."""
    return fact.value or UNKNOWN


# --- host -------------------------------------------------------------------------------------------------


def host_text(machine: Machine) -> str:
    """`cpu-box-3 · Linux 6.8.0 · docker`."""
    return " · ".join(filter(None, (machine.host, machine.os, machine.container)))


def processor(machine: Machine) -> str:
    """Model, microarchitecture unless the model's name contains it, and the board."""
    model, architecture = short_text(machine.cpu.model), machine.cpu.microarchitecture.value
    is_new = architecture is not None and architecture not in model
    return " · ".join(filter(None, (model, architecture if is_new else "", machine.cpu.board.value)))


def cores_and_threads(machine: Machine, width: int) -> str:
    """`2 of 168 threads usable (cgroup)`, preceded by the cores if `width` allows."""
    cpu = machine.cpu
    threads, cores = plural(cpu.threads, "thread"), _cores(machine)
    if machine.usable_cpus_reason:
        usable = f"{machine.usable_cpus} of {threads} usable ({machine.usable_cpus_reason})"
        longer = f"{cores} · {usable}"
        return longer if cores and len(longer) <= width else usable
    return f"{cores} · {threads}" if cores else threads


def _cores(machine: Machine) -> str:
    cpu = machine.cpu
    if cpu.performance_cores is None and cpu.core_kinds:
        return " + ".join(f"{kind.count} {kind.name}" for kind in cpu.core_kinds) + " cores"
    if cpu.performance_cores is not None and cpu.efficiency_cores is not None:
        return f"{cpu.performance_cores} P + {cpu.efficiency_cores} E cores"
    return plural(cpu.cores.value, "core") if cpu.cores.value is not None else ""


def limits_note(machine: Machine) -> str:
    """What a container or a batch system restricts this process to; empty without a restriction."""
    limits = []
    if machine.usable_cpus_reason:
        limits.append(f"{machine.usable_cpus} of {machine.cpu.threads} threads ({machine.usable_cpus_reason})")
    if machine.usable_memory_reason:
        total, usable = format_gib(machine.memory_bytes), format_gib(machine.usable_memory_bytes)
        limits.append(f"{usable} of {total} GiB memory ({machine.usable_memory_reason})")
    if not limits:
        return ""
    kind = machine.container
    holder = f"{kind} container" if kind not in ("", "container") else "container or job"
    return f"this {holder} may use {' and '.join(limits)}"


def clocks(machine: Machine) -> str:
    """`2.5 GHz base · 3.9 GHz max`."""
    base, highest = machine.cpu.base_clock_mhz, machine.cpu.max_clock_mhz
    if base.value is None and highest.value is None:
        return f"{UNKNOWN} {base.reason}"
    return " · ".join(
        f"{fact.value / 1000:.1f} GHz {name}" for name, fact in (("base", base), ("max", highest)) if fact.value
    )


def caches(machine: Machine) -> str:
    """`L1 2 × 32 KiB data, 2 × 32 KiB instruction · L3 35.8 MiB`."""
    fact = machine.cpu.caches
    if not fact.value:
        return f"{UNKNOWN} {fact.reason}"
    levels: dict[int, list[str]] = {}
    for cache in fact.value:
        times = f"{cache.count} × " if cache.count > 1 else ""
        kind = "" if cache.kind == "unified" else f" {cache.kind}"
        levels.setdefault(cache.level, []).append(f"{times}{format_bytes(cache.size_bytes)}{kind}")
    return " · ".join(f"L{level} {', '.join(texts)}" for level, texts in levels.items())


# --- GPU --------------------------------------------------------------------------------------------------


def gpus_are_old(sample: Sample | None) -> bool:
    """Whether the driver has not responded for some seconds."""
    return sample is not None and sample.gpu_age_s > GPU_STALE_S


def identity_texts(gpu: Gpu, machine: Machine) -> list[tuple[str, str]]:
    """Label and text of every constant fact about a GPU."""
    power = f"{fact_text(gpu.power_limit_default_w, 'W')} default, {fact_text(gpu.power_limit_max_w, 'W')} max"
    return [
        ("Name", fact_text(gpu.name)),
        ("Kind", _kind(gpu)),
        ("Architecture", _architecture(gpu)),
        ("Chip", f"{fact_text(gpu.multiprocessors)} multiprocessors · {fact_text(gpu.cuda_cores)} cores"),
        ("Memory", _memory(gpu)),
        ("PCIe", f"up to generation {fact_text(gpu.pcie_generation_max)}, {fact_text(gpu.pcie_width_max)} lanes"),
        ("Power limit", power),
        ("Modes", _modes(gpu)),
        ("Numbers", _indices(gpu, machine)),
        ("UUID", fact_text(gpu.uuid)),
        ("MIG", _mig(gpu)),
    ]


def _kind(gpu: Gpu) -> str:
    reading = gpu.reading
    if not reading.is_known:
        return "not in the table of GPUs"
    return " · ".join(filter(None, (reading.market, reading.tier, *reading.suffix)))


def _architecture(gpu: Gpu) -> str:
    name = gpu.architecture.value or gpu.reading.architecture or fact_text(gpu.architecture)
    return f"{name} · compute capability {fact_text(gpu.compute_capability)}"


def _memory(gpu: Gpu) -> str:
    """`80.0 GiB HBM3 · bus 5,120 bit · 3,352 GB/s`."""
    size = (
        f"{format_gib(gpu.memory_bytes.value)} GiB"
        if gpu.memory_bytes.value is not None
        else fact_text(gpu.memory_bytes)
    )
    kind = f" {gpu.memory_type.value}" if gpu.memory_type.value else " (type not reported by NVML)"
    bus, bandwidth = fact_text(gpu.memory_bus_bits, "bit"), fact_text(gpu.memory_bandwidth_gbs, "GB/s")
    return f"{size}{kind} · bus {bus} · {bandwidth}"


def _modes(gpu: Gpu) -> str:
    """`ECC on · persistence off · compute mode default`."""
    switches = [f"{name} {_on_off(fact)}" for name, fact in (("ECC", gpu.ecc), ("persistence", gpu.persistence))]
    return " · ".join([*switches, f"compute mode {fact_text(gpu.compute_mode)}"])


def _on_off(fact: Fact[bool]) -> str:
    return f"{UNKNOWN} {fact.reason}" if fact.value is None else "on" if fact.value else "off"


def _indices(gpu: Gpu, machine: Machine) -> str:
    """The GPU's index in NVML's and in CUDA's order, and the environment variable that decides the latter."""
    cuda = f"cuda:{gpu.cuda_index.value}" if gpu.cuda_index.value is not None else f"{UNKNOWN} {gpu.cuda_index.reason}"
    visible = f" · CUDA_VISIBLE_DEVICES={machine.visible_devices!r}" if machine.visible_devices is not None else ""
    return f"NVML {gpu.index} · torch {cuda}{visible}"


def _mig(gpu: Gpu) -> str:
    """The MIG devices of a GPU, or why there are none."""
    devices = gpu.mig_devices
    if devices.value is None:
        return f"{UNKNOWN} {devices.reason}"
    texts = [
        f"{fact_text(device.name)}, {format_bytes(device.memory_bytes.value)}, "
        f"{fact_text(device.multiprocessors)} multiprocessors, {fact_text(device.uuid)}"
        for device in devices.value
    ]
    return "; ".join(texts) or "on, but without MIG devices"


def process_line(process: GpuProcess) -> str:
    """Pid, user, memory and command in columns; a dash where a value is not visible, with the reason at the end."""
    user = process.user.value or UNKNOWN
    memory = format_bytes(process.memory_bytes.value) if process.memory_bytes.value is not None else UNKNOWN
    command = process.command.value or f"{UNKNOWN} {process.command.reason}"
    return f"{'':>12}{process.pid:>8}  {user[:8]:<8} {memory:>9}  {command}"


def ecc_errors(sample: GpuSample) -> str:
    """`0 corrected, 0 uncorrected since the driver was loaded`, or one reason why both are unknown."""
    corrected, uncorrected = sample.ecc_corrected, sample.ecc_uncorrected
    if corrected.value is None and corrected == uncorrected:
        return fact_text(corrected)
    return f"{fact_text(corrected)} corrected, {fact_text(uncorrected)} uncorrected since the driver was loaded"


def health_text(sample: GpuSample) -> str:
    """`fabric ready · recovery action none · 0 rows remapped · no Xid errors`: what the driver reports of it."""
    rows, xids = sample.remapped_rows, sample.xid_errors
    parts = [
        f"fabric {sample.fabric.value}" if sample.fabric.value else "",
        f"recovery action: {sample.recovery_action.value}" if sample.recovery_action.value else "",
        plural(rows.value, "row") + " remapped" if rows.value is not None else "",
        ""
        if xids.value is None
        else f"Xid errors {', '.join(map(str, xids.value))}"
        if xids.value
        else "no Xid errors",
    ]
    return " · ".join(filter(None, parts)) or fact_text(rows)


def problem_texts(problems: Iterable[GpuProblem]) -> list[tuple[str, str]]:
    """Label and text of each problem of a GPU and of its remedy."""
    return [line for problem in problems for line in (("Problem", problem.text), ("What to do", problem.advice))]


# --- software ---------------------------------------------------------------------------------------------


def software(ready: Ready) -> Iterator[tuple[str, str]]:
    """Label and text of each program that an engine reports."""
    yield "Python", ready.python_version or UNKNOWN
    build = "CPU only"
    if ready.cuda_version or ready.hip_version:
        build = f"CUDA {ready.cuda_version}" if ready.cuda_version else f"ROCm {ready.hip_version}"
    yield "torch", f"{ready.torch_version}, built for {build}"
    yield "cuDNN", cudnn(ready.cudnn_version) if ready.cudnn_version else f"{UNKNOWN} not part of this torch build"
    yield "Devices", ", ".join(f"{device.device} ({device.name})" for device in ready.devices)


def cudnn(version: int) -> str:
    """`9.1.0` of 90100, `8.0.5` of 8005."""
    major = version // 10_000 if version >= 10_000 else version // 1000
    rest = version - major * (10_000 if version >= 10_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def driver_text(machine: Machine) -> str:
    """`550.54.14 · supports CUDA up to 12.4`; empty on a machine without an NVIDIA GPU or driver."""
    if not machine.gpus and not machine.driver_version.value:
        return ""
    return f"{fact_text(machine.driver_version)} · supports CUDA up to {fact_text(machine.cuda_version)}"


def compatibility(machine: Machine, ready: Ready) -> Iterator[tuple[str, str, FindingKind]]:
    """Label, text and kind of each version mismatch and its fix, or of the finding that there is none."""
    findings = software_fit(ready, machine)
    for finding in findings:
        yield "Mismatch", finding.text, "problem"
        if finding.command:
            yield "Fix it with", finding.command, "fix"
    if not findings:
        yield "Versions", "all compatible with each other", "fine"
