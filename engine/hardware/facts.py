"""Facts about a machine: types only, nothing here reads a sensor.

Every value that a sensor may refuse is a :class:`Fact`. Imports msgspec and the standard library only.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Fact(msgspec.Struct, Generic[T], frozen=True):
    """A value, or None with the reason why it is unknown. Zero is a known value."""

    value: T | None = None
    reason: str = ""
    """Why the value is unknown, in a few words; empty if it is known."""


NOT_ASKED: Fact[Any] = Fact(reason="not asked")
"""Default of a fact that nothing has asked for."""


class UnreadableMachineError(Exception):
    """Nothing about a machine can be read; the message says why, for people."""


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The host's processor, including parts that this process may not use."""

    model: Fact[str]
    vendor: Fact[str]
    microarchitecture: Fact[str]
    """Name by its vendor: `Zen 4`, `Alder Lake`."""
    generation: Fact[str] = NOT_ASKED
    """Generation within its product line: `12th generation Core`, `4th generation EPYC`."""
    board: Fact[str] = NOT_ASKED
    """Board or server by its firmware; on Arm only, where the processor rarely has a name."""
    sockets: Fact[int] = NOT_ASKED
    cores: Fact[int]
    """Physical cores."""
    threads: int
    """Hardware threads."""
    core_kinds: tuple[CoreKind, ...] = ()
    """Cores by kind in a processor that has several, fastest first; empty if all cores are alike."""
    performance_cores: int | None = None
    """Performance cores of a hybrid processor; None if all cores are alike."""
    efficiency_cores: int | None = None
    """Efficiency cores of a hybrid processor; None if all cores are alike."""
    base_clock_mhz: Fact[float] = NOT_ASKED
    max_clock_mhz: Fact[float] = NOT_ASKED
    vector_instructions: Fact[tuple[str, ...]] = NOT_ASKED
    """Vector instructions that matter to PyTorch, oldest first: `AVX2`, `AVX-512`, `AMX`."""
    caches: Fact[tuple[Cache, ...]] = NOT_ASKED
    advice: str = ""
    """What to change about how this process uses the processor; empty if there is nothing."""


class CoreKind(msgspec.Struct, frozen=True):
    """Cores of one kind in a processor that has several."""

    name: str
    """The design, such as `Cortex-X925`, or `performance` and `efficiency` in Intel's and Apple's hybrids."""
    count: int


class Cache(msgspec.Struct, frozen=True):
    """All caches of one level and type."""

    level: int
    kind: str
    """`data`, `instruction` or `unified`."""
    size_bytes: int
    """Size of one cache; of the largest if they differ."""
    count: int
    """Number of such caches."""


class GpuName(msgspec.Struct, frozen=True):
    """The parts of a GPU's product name, by the table in gpus.toml; None for a name that is not in it."""

    generation: str | None = None
    """Series of a GeForce, such as `40`; the architecture of other products."""
    architecture: str | None = None
    tier: str | None = None
    """Place within the generation, such as `upper middle` or `flagship`."""
    suffix: tuple[str, ...] = ()
    """Variants, such as `Ti` or `laptop`."""
    market: str | None = None
    """Intended market, such as `consumer` or `data center`."""
    has_tensor_cores: bool | None = None
    """False for Turing chips that lack them; None where the compute capability tells."""
    shares_memory: bool = False
    """Whether the GPU has no memory of its own and uses the system's."""
    vgpu_series: str | None = None
    """Series of a vGPU: `C` compute, `Q` workstation, `B` PC, `A` application; None for cards and without a letter."""
    has_cuda: bool = True
    """False for a vGPU whose profile has no CUDA."""

    @property
    def is_known(self) -> bool:
        """Whether the name is in the table."""
        return self.architecture is not None


class GpuProblem(msgspec.Struct, frozen=True):
    """A state in which a GPU does not work, or will not for long."""

    kind: str
    """Which state, such as `GpuIsLost`, `Fabric` or `Xid 79`."""
    text: str
    """What it means."""
    advice: str
    """What to do."""
    is_fatal: bool
    """Whether no job runs on the GPU until then."""


class MigDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One MIG instance of a GPU."""

    name: Fact[str]
    uuid: Fact[str]
    memory_bytes: Fact[int]
    multiprocessors: Fact[int]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU."""

    index: int
    """NVML's index, which may differ from CUDA's."""
    name: Fact[str]
    uuid: Fact[str]
    cuda_index: Fact[int] = NOT_ASKED
    """N in `cuda:N` in this environment; CUDA_VISIBLE_DEVICES can hide and reorder GPUs."""
    reading: GpuName = GpuName()
    """Parts of the product name."""
    architecture: Fact[str] = NOT_ASKED
    """Architecture as the driver reports it."""
    compute_capability: Fact[str] = NOT_ASKED
    """CUDA compute capability, such as `8.6`."""
    multiprocessors: Fact[int] = NOT_ASKED
    cuda_cores: Fact[int] = NOT_ASKED
    memory_bytes: Fact[int]
    memory_type: Fact[str] = NOT_ASKED
    memory_bus_bits: Fact[int] = NOT_ASKED
    memory_bandwidth_gbs: Fact[float] = NOT_ASKED
    """Peak bandwidth in 10⁹ bytes per second, computed from the bus width and the highest memory clock."""
    pcie_generation_max: Fact[int] = NOT_ASKED
    pcie_width_max: Fact[int] = NOT_ASKED
    power_limit_default_w: Fact[float] = NOT_ASKED
    power_limit_max_w: Fact[float] = NOT_ASKED
    temperature_limit_c: Fact[float] = NOT_ASKED
    """Temperature at which the GPU slows down."""
    sm_clock_max_mhz: Fact[int] = NOT_ASKED
    memory_clock_max_mhz: Fact[int] = NOT_ASKED
    ecc: Fact[bool] = NOT_ASKED
    """Whether error correction is on."""
    persistence: Fact[bool] = NOT_ASKED
    """Whether persistence mode is on."""
    compute_mode: Fact[str] = NOT_ASKED
    mig: bool = False
    """Whether the GPU is split into MIG instances; its utilization is unknown then."""
    mig_devices: Fact[tuple[MigDevice, ...]] = NOT_ASKED
    problems: tuple[GpuProblem, ...] = ()
    """What the driver's error codes said at identification; a sample has the current problems."""
    is_complete: bool = True
    """Whether name, UUID and memory are known or can never be; False after an error that may pass."""


class OtherGpu(msgspec.Struct, frozen=True):
    """A display or compute device on the PCI bus that NVML does not list."""

    vendor: str
    """`AMD`, `Intel`, `NVIDIA`, or the PCI vendor's number."""
    address: str
    """PCI address."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is; nothing here changes while it is up."""

    host: str
    os: str
    container: str = ""
    """Type of the container this process is in, such as `docker`; empty outside a container."""
    cpu: Cpu
    runnable_cpus: int
    """CPUs this process may run on (its affinity), before any time quota."""
    usable_cpus: int
    """CPUs this process may keep busy: the smaller of its affinity and its quota."""
    usable_cpus_reason: str = ""
    """`cgroup` or `affinity` if fewer than all threads are usable; else empty."""
    memory_bytes: int
    """Memory of the host."""
    usable_memory_bytes: int
    """Memory this process may use: the smallest of the host's memory and the control groups' limits."""
    usable_memory_reason: str = ""
    """`cgroup` if less than the host's memory is usable; else empty."""
    gpus: tuple[Gpu, ...] = ()
    no_gpu_reason: str = ""
    """Why there are no NVIDIA GPUs, which is a normal state; empty if there are some."""
    no_gpu_error: str = ""
    """NVML's name for the error behind that reason, such as `LibRmVersionMismatch`; empty without one."""
    other_gpus: tuple[OtherGpu, ...] = ()
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES in this environment; None if it is not set."""
    driver_version: Fact[str] = Fact(reason="no NVIDIA driver found")
    cuda_version: Fact[str] = Fact(reason="no NVIDIA driver found")
    """Newest CUDA version that the driver supports, not the one torch was built with."""


class CoreLoad(msgspec.Struct, frozen=True):
    """Load of one usable CPU."""

    cpu: int
    """Number of the CPU."""
    percent: float


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load of the engine process."""

    pid: int
    cpu_percent: Fact[float]
    """CPU use; 100 is one busy CPU."""
    memory_bytes: Fact[int]
    """Resident memory."""


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds memory on a GPU."""

    pid: int
    user: Fact[str]
    memory_bytes: Fact[int]
    command: Fact[str]


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """Load of one GPU."""

    index: int
    """NVML's index."""
    utilization_percent: Fact[float]
    """Share of the time in which any kernel ran, however little of the GPU it used."""
    sm_percent: Fact[float] = NOT_ASKED
    """Share of the multiprocessors that were busy; Hopper and later."""
    tensor_percent: Fact[float] = NOT_ASKED
    """Share of the tensor cores' time that was busy; Hopper and later."""
    dram_percent: Fact[float] = NOT_ASKED
    """Share of the memory bandwidth that was used; Hopper and later."""
    memory_used_bytes: Fact[int]
    """Memory in use, without the driver's reserve."""
    memory_reserved_bytes: Fact[int] = NOT_ASKED
    """Memory that the driver reserves for itself."""
    memory_total_bytes: Fact[int]
    temperature_c: Fact[float]
    power_w: Fact[float]
    power_limit_w: Fact[float]
    sm_clock_mhz: Fact[int] = NOT_ASKED
    memory_clock_mhz: Fact[int] = NOT_ASKED
    slowed_by: Fact[tuple[str, ...]] = NOT_ASKED
    """Reasons why the clocks are reduced; empty if they are not."""
    fan_percent: Fact[float] = NOT_ASKED
    pcie_generation: Fact[int] = NOT_ASKED
    pcie_width: Fact[int] = NOT_ASKED
    pcie_sent_kbs: Fact[float] = NOT_ASKED
    """KiB per second from the GPU to the host."""
    pcie_received_kbs: Fact[float] = NOT_ASKED
    """KiB per second from the host to the GPU."""
    nvlink_sent_kbs: Fact[float] = NOT_ASKED
    """KiB per second sent over all NVLinks."""
    nvlink_received_kbs: Fact[float] = NOT_ASKED
    """KiB per second received over all NVLinks."""
    ecc_corrected: Fact[int] = NOT_ASKED
    """Corrected memory errors since the driver was loaded."""
    ecc_uncorrected: Fact[int] = NOT_ASKED
    """Uncorrected memory errors since the driver was loaded."""
    processes: Fact[tuple[GpuProcess, ...]] = NOT_ASKED
    fabric: Fact[str] = NOT_ASKED
    """State of the NVLink fabric: `ready`, `in progress`, `not started`; before `ready`, CUDA fails with error 802."""
    recovery_action: Fact[str] = NOT_ASKED
    """What the driver asks for to recover the GPU: `none`, `reset the GPU` …"""
    remapped_rows: Fact[int] = NOT_ASKED
    """Memory rows that were replaced after errors."""
    remapping_pending: Fact[bool] = NOT_ASKED
    """Whether rows are replaced at the next reset."""
    remapping_failed: Fact[bool] = NOT_ASKED
    xid_errors: Fact[tuple[int, ...]] = NOT_ASKED
    """Numbers of the Xid errors since the first reading."""
    problems: tuple[GpuProblem, ...] = ()
    """Everything that is wrong with the GPU, what stops jobs first."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Load of a machine at one moment."""

    cpu_percent: Fact[float]
    """Load of all usable CPUs together, 0 to 100."""
    core_percents: tuple[CoreLoad, ...] = ()
    """Load of each CPU this process may run on; empty until the second reading."""
    memory_used_bytes: int
    """Usable memory minus available memory."""
    memory_usable_bytes: int
    swap_used_bytes: Fact[int] = NOT_ASKED
    swap_total_bytes: Fact[int] = NOT_ASKED
    engine: EngineLoad | None = None
    """Load of the engine; None without an engine."""
    gpus: tuple[GpuSample, ...] = ()
    gpu_age_s: float = 0.0
    """Seconds since the driver last answered; the GPUs' values are stale after a second or two."""
    gpu_count: int = 0
    """Number of GPUs that the driver reports."""
    gpus_identified: int = 0
    """How often the identity of the GPUs became known or changed; a new number asks for identifying the machine again."""
