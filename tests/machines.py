"""Machines and samples made up for tests of the screen."""

from __future__ import annotations

from typing import Any

from engine.hardware import CoreLoad, Cpu, Fact, Gpu, GpuSample, Machine, Sample
from tui.gauges import Histories
from tui.machine_rows import blocks, fit

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
    return ["".join(span.text for span in row) for row in fit(blocks(machine, sample, histories, width), width, height)]
