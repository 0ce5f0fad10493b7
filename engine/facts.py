"""What can be known of a machine: the types, nothing that reads.

Every figure that a sensor may refuse is a :class:`Fact`. Must import msgspec and the standard library only.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Fact(msgspec.Struct, Generic[T], frozen=True):
    """A value, or None and why there is none. Zero is a value; unknown never is one."""

    value: T | None = None
    reason: str = ""
    """Why the value is unknown, in a few words; empty when it is known."""


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor of the host, whatever part of it may be used."""

    model: Fact[str]
    vendor: Fact[str]
    microarchitecture: Fact[str]
    """As its maker calls it: `Zen 4`, `Alder Lake`."""
    cores: Fact[int]
    """Physical cores."""
    threads: int
    performance_cores: int | None = None
    """None on a processor whose cores are all of one kind."""
    efficiency_cores: int | None = None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU, by its NVML index, which is not CUDA's: match by `uuid`."""

    index: int
    name: Fact[str]
    uuid: Fact[str]
    memory_bytes: Fact[int]
    mig: bool = False
    """Whether the card is split into MIG instances; its own utilization is unknown then."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is; does not change while it is up."""

    host: str
    os: str
    cpu: Cpu
    runnable_cpus: int
    """CPUs this process may run on: its affinity, before any quota of time."""
    usable_cpus: int
    """CPUs this process may keep busy: the smaller of its affinity and its quota."""
    usable_cpus_reason: str = ""
    """Why fewer than all threads are usable; empty when all are."""
    memory_bytes: int
    usable_memory_bytes: int
    usable_memory_reason: str = ""
    gpus: tuple[Gpu, ...] = ()
    no_gpu_reason: str = ""
    """Why there are no GPUs, which is a normal state; empty when there are some."""
    driver_version: Fact[str] = Fact(reason="no NVIDIA driver found")
    cuda_version: Fact[str] = Fact(reason="no NVIDIA driver found")
    """The newest CUDA that the driver supports, not the one torch was built with."""


class CoreLoad(msgspec.Struct, frozen=True):
    """Load of one usable CPU."""

    cpu: int
    percent: float


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """How busy one GPU is."""

    index: int
    utilization_percent: Fact[float]
    """Share of the time in which some kernel ran; not how much of the card it used."""
    memory_used_bytes: Fact[int]
    memory_total_bytes: Fact[int]
    temperature_c: Fact[float]
    power_w: Fact[float]
    power_limit_w: Fact[float]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a machine is."""

    cpu_percent: Fact[float]
    """0 to 100 over the usable CPUs together."""
    core_percents: tuple[CoreLoad, ...] = ()
    """Of each CPU this process may run on; empty until there are two readings."""
    memory_used_bytes: int
    """Usable memory that is not available any more."""
    memory_usable_bytes: int
    gpus: tuple[GpuSample, ...] = ()
