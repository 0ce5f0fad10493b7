"""What this machine is and how busy it is.

Never imports torch, and is cheap to import: psutil and pynvml are imported by the calls that need them.
An unknown value is None with a reason; nothing here raises because a sensor is missing.
"""

from __future__ import annotations

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.compatibility import Finding, software_fit
from epochtop.engine.hardware.facts import (
    NOT_ASKED,
    Cache,
    CoreKind,
    CoreLoad,
    Cpu,
    EngineLoad,
    Fact,
    Gpu,
    GpuName,
    GpuProblem,
    GpuProcess,
    GpuSample,
    Machine,
    MigDevice,
    OtherGpu,
    Sample,
    UnreadableMachineError,
)
from epochtop.engine.hardware.job_fit import job_findings, speed_class
from epochtop.engine.hardware.limits import available_memory_bytes, usable_cpus, usable_memory_bytes
from epochtop.engine.hardware.machine import identify
from epochtop.engine.hardware.meaning import cpu_meaning, cpu_use, gpu_meaning, gpu_use, training_bytes
from epochtop.engine.hardware.sampler import Sampler

__all__ = [
    "NOT_ASKED",
    "Cache",
    "CoreKind",
    "CoreLoad",
    "Cpu",
    "EngineLoad",
    "Fact",
    "Finding",
    "Gpu",
    "GpuName",
    "GpuProblem",
    "GpuProcess",
    "GpuSample",
    "Machine",
    "MigDevice",
    "OtherGpu",
    "Roots",
    "Sample",
    "Sampler",
    "UnreadableMachineError",
    "available_memory_bytes",
    "cpu_meaning",
    "cpu_use",
    "gpu_meaning",
    "gpu_use",
    "identify",
    "job_findings",
    "software_fit",
    "speed_class",
    "training_bytes",
    "usable_cpus",
    "usable_memory_bytes",
]
