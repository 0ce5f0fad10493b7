"""What can be known of a machine: the types, nothing that reads.

Every figure that a sensor may refuse is a :class:`Fact`. Must import msgspec and the standard library only.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Fact(msgspec.Struct, Generic[T], frozen=True):
    """A value, or None and why there is none. Zero is a value; unknown never is one."""

    value: T | None = None
    reason: str = ""
    """Why the value is unknown, in a few words; empty when it is known."""


NOT_ASKED: Fact[Any] = Fact(reason="not asked")


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor of the host, whatever part of it may be used."""

    model: Fact[str]
    vendor: Fact[str]
    microarchitecture: Fact[str]
    """As its maker calls it: `Zen 4`, `Alder Lake`."""
    generation: Fact[str] = NOT_ASKED
    """Which of its line's generations: `12th generation Core`, `4th generation EPYC (Genoa)`."""
    sockets: Fact[int] = NOT_ASKED
    cores: Fact[int]
    """Physical cores."""
    threads: int
    performance_cores: int | None = None
    """None on a processor whose cores are all of one kind."""
    efficiency_cores: int | None = None
    base_clock_mhz: Fact[float] = NOT_ASKED
    max_clock_mhz: Fact[float] = NOT_ASKED
    vector_instructions: Fact[tuple[str, ...]] = NOT_ASKED
    """Those that matter to PyTorch, the plainest first: `AVX2`, `AVX-512`, `AMX`."""
    caches: Fact[tuple[Cache, ...]] = NOT_ASKED


class Cache(msgspec.Struct, frozen=True):
    """All caches of one level and kind."""

    level: int
    kind: str
    """`data`, `instruction` or `unified`."""
    size_bytes: int
    """Of one of them; the largest where they differ."""
    count: int


class GpuName(msgspec.Struct, frozen=True):
    """What a GPU's product name says, by the table in gpus.toml; None where the table does not know it."""

    generation: str | None = None
    """`40` of a GeForce; else the architecture's name."""
    architecture: str | None = None
    tier: str | None = None
    suffix: tuple[str, ...] = ()
    market: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether the table has it."""
        return self.architecture is not None


class MigDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of a card that is split."""

    name: Fact[str]
    uuid: Fact[str]
    memory_bytes: Fact[int]
    multiprocessors: Fact[int]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU, by its NVML index, which need not be CUDA's."""

    index: int
    name: Fact[str]
    uuid: Fact[str]
    cuda_index: Fact[int] = NOT_ASKED
    """Its number in `cuda:N` of this environment; CUDA_VISIBLE_DEVICES can hide and reorder."""
    reading: GpuName = GpuName()
    architecture: Fact[str] = NOT_ASKED
    """As the driver tells it."""
    compute_capability: Fact[str] = NOT_ASKED
    multiprocessors: Fact[int] = NOT_ASKED
    cuda_cores: Fact[int] = NOT_ASKED
    memory_bytes: Fact[int]
    memory_type: Fact[str] = NOT_ASKED
    memory_bus_bits: Fact[int] = NOT_ASKED
    memory_bandwidth_gbs: Fact[float] = NOT_ASKED
    """In 10⁹ bytes a second, from the bus and the fastest memory clock."""
    pcie_generation_max: Fact[int] = NOT_ASKED
    pcie_width_max: Fact[int] = NOT_ASKED
    power_limit_default_w: Fact[float] = NOT_ASKED
    power_limit_max_w: Fact[float] = NOT_ASKED
    temperature_limit_c: Fact[float] = NOT_ASKED
    """Where the card begins to slow down."""
    sm_clock_max_mhz: Fact[int] = NOT_ASKED
    memory_clock_max_mhz: Fact[int] = NOT_ASKED
    ecc: Fact[bool] = NOT_ASKED
    persistence: Fact[bool] = NOT_ASKED
    compute_mode: Fact[str] = NOT_ASKED
    mig: bool = False
    """Whether the card is split into MIG instances; its own utilization is unknown then."""
    mig_devices: Fact[tuple[MigDevice, ...]] = NOT_ASKED


class OtherGpu(msgspec.Struct, frozen=True):
    """A display or compute device on the PCI bus that NVML does not count."""

    vendor: str
    """`AMD`, `Intel`, `NVIDIA`, or the PCI vendor's number."""
    address: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is; does not change while it is up."""

    host: str
    os: str
    container: str = ""
    """What kind of container this is in: `docker`, `kubernetes` …; empty outside of one."""
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
    other_gpus: tuple[OtherGpu, ...] = ()
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES of this environment; None where it is not set."""
    driver_version: Fact[str] = Fact(reason="no NVIDIA driver found")
    cuda_version: Fact[str] = Fact(reason="no NVIDIA driver found")
    """The newest CUDA that the driver supports, not the one torch was built with."""


class CoreLoad(msgspec.Struct, frozen=True):
    """Load of one usable CPU."""

    cpu: int
    percent: float


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one process takes of the machine: the engine that trains or waits."""

    pid: int
    cpu_percent: Fact[float]
    """100 is one CPU kept busy."""
    memory_bytes: Fact[int]
    """Resident."""


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds memory on a GPU."""

    pid: int
    user: Fact[str]
    memory_bytes: Fact[int]
    command: Fact[str]


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """How busy one GPU is."""

    index: int
    utilization_percent: Fact[float]
    """Share of the time in which some kernel ran; not how much of the card it used."""
    sm_percent: Fact[float] = NOT_ASKED
    """Multiprocessors that were busy: the real use, on Hopper and later."""
    tensor_percent: Fact[float] = NOT_ASKED
    dram_percent: Fact[float] = NOT_ASKED
    memory_used_bytes: Fact[int]
    """Without what the driver keeps for itself."""
    memory_reserved_bytes: Fact[int] = NOT_ASKED
    memory_total_bytes: Fact[int]
    temperature_c: Fact[float]
    power_w: Fact[float]
    power_limit_w: Fact[float]
    sm_clock_mhz: Fact[int] = NOT_ASKED
    memory_clock_mhz: Fact[int] = NOT_ASKED
    slowed_by: Fact[tuple[str, ...]] = NOT_ASKED
    """Why the clocks are below their best; empty when nothing holds them back."""
    fan_percent: Fact[float] = NOT_ASKED
    pcie_generation: Fact[int] = NOT_ASKED
    pcie_width: Fact[int] = NOT_ASKED
    pcie_sent_kbs: Fact[float] = NOT_ASKED
    """KiB a second from the GPU to the host."""
    pcie_received_kbs: Fact[float] = NOT_ASKED
    nvlink_sent_kbs: Fact[float] = NOT_ASKED
    nvlink_received_kbs: Fact[float] = NOT_ASKED
    ecc_corrected: Fact[int] = NOT_ASKED
    """Errors since the driver was loaded."""
    ecc_uncorrected: Fact[int] = NOT_ASKED
    processes: Fact[tuple[GpuProcess, ...]] = NOT_ASKED


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a machine is."""

    cpu_percent: Fact[float]
    """0 to 100 over the usable CPUs together."""
    core_percents: tuple[CoreLoad, ...] = ()
    """Of each CPU this process may run on; empty until there are two readings."""
    memory_used_bytes: int
    """Usable memory that is not available any more."""
    memory_usable_bytes: int
    swap_used_bytes: Fact[int] = NOT_ASKED
    swap_total_bytes: Fact[int] = NOT_ASKED
    engine: EngineLoad | None = None
    """None while no engine is known."""
    gpus: tuple[GpuSample, ...] = ()
    gpu_age_s: float = 0.0
    """Seconds since the driver last answered; above a second or two the GPUs' figures are old."""
    gpu_count: int = 0
    """GPUs that the driver counts now."""
