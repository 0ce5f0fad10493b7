"""Machines and samples made up for tests of the screen."""

from __future__ import annotations

from typing import Any

from epochtop.engine.hardware import Cache, CoreLoad, Cpu, Fact, Gpu, GpuName, GpuProcess, GpuSample, Machine, Sample
from epochtop.engine.protocol.requests import DeviceFact, Ready
from epochtop.tui.cells.gauges import Histories
from epochtop.tui.machine.rows import blocks, fit

GIB = 1 << 30


def a_machine(gpus: int | tuple[Gpu, ...] = 0, **changes: Any) -> Machine:
    cards = tuple(a_gpu(index) for index in range(gpus)) if isinstance(gpus, int) else gpus
    facts: dict[str, Any] = {
        "host": "cpu-box-3",
        "os": "Linux 6.8.0",
        "cpu": Cpu(
            model=Fact("AMD EPYC 9634"),
            vendor=Fact("AMD"),
            microarchitecture=Fact("Zen 4"),
            cores=Fact(84),
            threads=168,
        ),
        "runnable_cpus": 168,
        "usable_cpus": 2,
        "usable_cpus_reason": "cgroup",
        "memory_bytes": 188 * GIB,
        "usable_memory_bytes": 24 * GIB,
        "usable_memory_reason": "cgroup",
        "gpus": cards,
        "no_gpu_reason": "" if cards else "no NVIDIA driver found",
    }
    if cards:
        facts |= {"driver_version": Fact("550.54.14"), "cuda_version": Fact("12.4")}
    return Machine(**(facts | changes))


def a_gpu(index: int, **changes: Any) -> Gpu:
    facts: dict[str, Any] = {"name": Fact("NVIDIA H200"), "uuid": Fact(f"GPU-{index}"), "memory_bytes": Fact(140 * GIB)}
    return Gpu(index=index, **(facts | changes))


def a_load(index: int, **changes: Any) -> GpuSample:
    facts: dict[str, Any] = {
        "utilization_percent": Fact(97.0),
        "memory_used_bytes": Fact(12 * GIB),
        "memory_total_bytes": Fact(140 * GIB),
        "temperature_c": Fact(61.0),
        "power_w": Fact(412.3),
        "power_limit_w": Fact(700.0),
    }
    return GpuSample(index=index, **(facts | changes))


def a_sample(gpus: int | tuple[GpuSample, ...] = 0, **changes: Any) -> Sample:
    loads = tuple(a_load(index) for index in range(gpus)) if isinstance(gpus, int) else gpus
    facts: dict[str, Any] = {
        "cpu_percent": Fact(97.0),
        "core_percents": tuple(CoreLoad(cpu, 50.0) for cpu in range(168)),
        "memory_used_bytes": int(1.2 * GIB),
        "memory_usable_bytes": 24 * GIB,
        "gpus": loads,
    }
    return Sample(**(facts | changes))


def rows(machine: Machine, sample: Sample | None, width: int, height: int = 6) -> list[str]:
    """The rows after one sample, as text."""
    histories = Histories()
    if sample:
        histories.add(sample)
    return [row.text for row in fit(blocks(machine, sample, histories, width), width, height)]


def a_full_gpu(index: int, **changes: Any) -> Gpu:
    """A card of which everything is known."""
    facts: dict[str, Any] = {
        "reading": GpuName("Hopper", "Hopper", "flagship", (), "data center"),
        "architecture": Fact("Hopper"),
        "compute_capability": Fact("9.0"),
        "multiprocessors": Fact(132),
        "cuda_cores": Fact(16896),
        "memory_bus_bits": Fact(6144),
        "memory_bandwidth_gbs": Fact(4916.7),
        "memory_type": Fact(reason="not reported by NVML"),
        "pcie_generation_max": Fact(5),
        "pcie_width_max": Fact(16),
        "power_limit_default_w": Fact(700.0),
        "power_limit_max_w": Fact(700.0),
        "temperature_limit_c": Fact(87.0),
        "sm_clock_max_mhz": Fact(1980),
        "memory_clock_max_mhz": Fact(3201),
        "ecc": Fact(True),
        "persistence": Fact(False),
        "compute_mode": Fact("default"),
        "cuda_index": Fact(index),
        "mig_devices": Fact(reason="MIG is off, or this card has none"),
    }
    return a_gpu(index, **(facts | changes))


def a_full_load(index: int, **changes: Any) -> GpuSample:
    """A card every figure of which is known."""
    process = GpuProcess(
        pid=4711, user=Fact("ada"), memory_bytes=Fact(5 * GIB), command=Fact("python -m epochtop.engine")
    )
    facts: dict[str, Any] = {
        "sm_percent": Fact(41.5),
        "tensor_percent": Fact(12.0),
        "dram_percent": Fact(30.0),
        "memory_reserved_bytes": Fact(1 * GIB),
        "sm_clock_mhz": Fact(1755),
        "memory_clock_mhz": Fact(3201),
        "slowed_by": Fact(("power limit",)),
        "fan_percent": Fact(reason="not supported by this card"),
        "pcie_generation": Fact(5),
        "pcie_width": Fact(16),
        "pcie_sent_kbs": Fact(120_000.0),
        "pcie_received_kbs": Fact(2_400_000.0),
        "nvlink_sent_kbs": Fact(reason="not supported by this card"),
        "nvlink_received_kbs": Fact(reason="not supported by this card"),
        "ecc_corrected": Fact(0),
        "ecc_uncorrected": Fact(0),
        "processes": Fact((process,)),
        "fabric": Fact("ready"),
        "recovery_action": Fact("none"),
        "remapped_rows": Fact(0),
        "remapping_pending": Fact(False),
        "remapping_failed": Fact(False),
        "xid_errors": Fact(()),
    }
    return a_load(index, **(facts | changes))


def a_ready(cuda: str | None = None, **changes: Any) -> Ready:
    """What a standby tells of its software."""
    facts: dict[str, Any] = {
        "torch_version": "2.13.0",
        "cuda_version": cuda,
        "cudnn_version": 91002 if cuda else None,
        "devices": (
            DeviceFact(device="cpu", name="AMD EPYC 9634"),
            *([DeviceFact(device="cuda:0", name="NVIDIA H200", uuid="GPU-0")] if cuda else []),
        ),
        "pid": 1,
        "python": "/env/bin/python",
        "python_version": "3.12.1",
    }
    return Ready(**(facts | changes))


def a_full_machine(gpus: int = 0) -> Machine:
    """A machine of which everything is known."""
    cpu = Cpu(
        model=Fact("AMD EPYC 9634"),
        vendor=Fact("AMD"),
        microarchitecture=Fact("Zen 4"),
        generation=Fact("4th generation EPYC"),
        sockets=Fact(1),
        cores=Fact(84),
        threads=168,
        base_clock_mhz=Fact(2250.0),
        max_clock_mhz=Fact(3700.0),
        vector_instructions=Fact(("AVX", "AVX2", "AVX-512", "AVX-512 BF16")),
        caches=Fact(
            (Cache(1, "data", 32 << 10, 84), Cache(2, "unified", 1 << 20, 84), Cache(3, "unified", 32 << 20, 12))
        ),
    )
    cards = tuple(a_full_gpu(index) for index in range(gpus))
    return a_machine(cards, cpu=cpu, container="docker")
