"""Identification of this machine: everything that does not change while it is up. Never imports torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from epochtop.engine.hardware import limits
from epochtop.engine.hardware.cgroups import CpuQuota, MemoryLimit, Roots, cpu_quota, memory_limits
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.hardware.environment import container, display_devices, system
from epochtop.engine.hardware.facts import Gpu, Machine, OtherGpu
from epochtop.engine.hardware.gpu.child import GpuInventory
from epochtop.engine.hardware.gpu.nvml import NO_DRIVER
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.visibility import VARIABLE, cuda_indices
from epochtop.engine.hardware.gpu.watchdog import GpuWatch

PATIENCE_S = 2.0
"""Seconds to wait for the driver, which may have to wake its GPUs."""


class Surroundings(NamedTuple):
    """What only a process on the machine can tell."""

    host: str
    container: str
    """Type of the container, such as `docker`; empty outside a container."""
    affinity: int
    """CPUs that a process may run on."""
    quota: CpuQuota | None
    memory_bytes: int
    memory_limits: list[MemoryLimit]


def identify(
    roots: Roots = Roots(),  # noqa: B008 - frozen
    watch: GpuWatch | None = None,
    patience_s: float = PATIENCE_S,
    environment: Mapping[str, str] = os.environ,
) -> Machine:
    """Identify this machine. Takes some milliseconds, longer if the driver has to wake its GPUs.

    `watch` is an open connection to the driver; without one, a connection is opened and closed.
    """
    kind = container(roots)
    connection = watch or GpuWatch(Processes(roots, kind))
    surroundings = Surroundings(
        host=platform.node() or "unnamed",
        container=kind,
        affinity=len(limits.affinity_cpus()),
        quota=cpu_quota(roots),
        memory_bytes=limits.host_memory_bytes(roots)[0],
        memory_limits=memory_limits(roots),
    )
    inventory = connection.identify(patience_s)
    if watch is None:
        connection.close()
    return machine_of(roots, surroundings, inventory, environment)


def machine_of(
    roots: Roots, surroundings: Surroundings, inventory: GpuInventory, environment: Mapping[str, str]
) -> Machine:
    """The machine whose kernel's files are under `roots`."""
    kind, quota, affinity = surroundings.container, surroundings.quota, surroundings.affinity
    cpu, on_bus, os_name = identify_cpu(roots), display_devices(roots), system(roots)
    memory, group_limits = surroundings.memory_bytes, surroundings.memory_limits
    return Machine(
        host=surroundings.host,
        os=os_name,
        container=kind,
        cpu=cpu,
        runnable_cpus=affinity,
        usable_cpus=limits.usable_count(quota, affinity),
        usable_cpus_reason=limits.why_fewer_cpus(cpu.threads, affinity, quota),
        memory_bytes=memory,
        usable_memory_bytes=min([memory, *(limit.limit_bytes for limit in group_limits)]),
        usable_memory_reason=limits.why_less_memory(memory, group_limits),
        gpus=_numbered(inventory.gpus, environment),
        no_gpu_reason=_why_none(inventory, on_bus, kind, "(WSL)" in os_name, environment),
        no_gpu_error=inventory.error,
        other_gpus=tuple(device for device in on_bus if not (device.vendor == "NVIDIA" and inventory.gpus)),
        visible_devices=environment.get(VARIABLE),
        driver_version=inventory.driver_version,
        cuda_version=inventory.cuda_version,
    )


def _numbered(gpus: tuple[Gpu, ...], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    numbers = cuda_indices([gpu.uuid.value for gpu in gpus], [gpu.name.value for gpu in gpus], environment)
    return tuple(msgspec.structs.replace(gpu, cuda_index=number) for gpu, number in zip(gpus, numbers, strict=True))


def _why_none(
    inventory: GpuInventory, on_bus: tuple[OtherGpu, ...], container: str, wsl: bool, environment: Mapping[str, str]
) -> str:
    """The driver's reason, with a remedy where the environment or the PCI bus tells one."""
    reason = inventory.reason
    if inventory.error == "Unknown" and container:
        return f"{reason}: this container lost its GPUs, as after a systemctl daemon-reload: restart the container"
    if inventory.error == "LibRmVersionMismatch" and environment.get("LD_LIBRARY_PATH"):
        return f"{reason}; LD_LIBRARY_PATH may lead to another driver's library: try without it first"
    if reason != NO_DRIVER:
        return reason
    if any(device.vendor == "NVIDIA" for device in on_bus):
        if container:
            return "the host has an NVIDIA GPU, but this container has no access: start it with --gpus all"
        return f"{NO_DRIVER}, but the PCI bus has an NVIDIA GPU: install the driver"
    return f"{NO_DRIVER} (WSL uses the Windows driver: install it in Windows)" if wsl else reason
