"""What this machine is: everything that does not change while it is up, put together."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

import msgspec

from epochtop.engine.hardware import limits as usable
from epochtop.engine.hardware.cgroups import Roots, cpu_quota, memory_limits
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.hardware.environment import container, display_devices, system
from epochtop.engine.hardware.facts import Gpu, Machine, OtherGpu
from epochtop.engine.hardware.gpu.nvml import NO_DRIVER
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.visibility import VARIABLE, cuda_indices
from epochtop.engine.hardware.gpu.watchdog import GpuWatch

PATIENCE_S = 2.0
"""How long a driver that has to wake its GPUs is waited for."""


def identify(
    roots: Roots = Roots(),  # noqa: B008 - frozen
    watch: GpuWatch | None = None,
    patience_s: float = PATIENCE_S,
    environment: Mapping[str, str] = os.environ,
) -> Machine:
    """What this machine is. Takes some milliseconds, more where a driver has to wake its GPUs.

    `watch` is a line to the driver that is open already.
    """
    kind = container(roots)
    own = watch or GpuWatch(Processes(roots, kind))
    cpu, quota, affinity = identify_cpu(roots), cpu_quota(roots), len(usable.affinity_cpus())
    memory, limits = usable.host_memory_bytes(roots)[0], memory_limits(roots)
    on_bus, os_name = display_devices(roots), system(roots)
    found = own.identify(patience_s)
    if watch is None:
        own.close()
    return Machine(
        host=platform.node() or "unnamed",
        os=os_name,
        container=kind,
        cpu=cpu,
        runnable_cpus=affinity,
        usable_cpus=usable.limited(quota, affinity),
        usable_cpus_reason=usable.why_fewer_cpus(cpu.threads, affinity, quota),
        memory_bytes=memory,
        usable_memory_bytes=min([memory, *(limit.limit_bytes for limit in limits)]),
        usable_memory_reason=usable.why_less_memory(memory, limits),
        gpus=_numbered(found.gpus, environment),
        no_gpu_reason=_why_none(found.reason, on_bus, kind, "(WSL)" in os_name),
        other_gpus=tuple(device for device in on_bus if not (device.vendor == "NVIDIA" and found.gpus)),
        visible_devices=environment.get(VARIABLE),
        driver_version=found.driver_version,
        cuda_version=found.cuda_version,
    )


def _numbered(gpus: tuple[Gpu, ...], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    numbers = cuda_indices([gpu.uuid.value for gpu in gpus], [gpu.name.value for gpu in gpus], environment)
    return tuple(msgspec.structs.replace(gpu, cuda_index=number) for gpu, number in zip(gpus, numbers, strict=True))


def _why_none(reason: str, on_bus: tuple[OtherGpu, ...], container: str, wsl: bool) -> str:
    """The driver's reason, and what can be done where the bus tells more."""
    if reason != NO_DRIVER:
        return reason
    if any(device.vendor == "NVIDIA" for device in on_bus):
        if container:
            return "an NVIDIA GPU is on the host, but not in this container: start it with --gpus all"
        return f"{NO_DRIVER}, but an NVIDIA GPU is on the PCI bus: install the driver"
    return f"{NO_DRIVER} (under WSL it is the driver of Windows that counts)" if wsl else reason
