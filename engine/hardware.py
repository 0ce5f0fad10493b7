"""What this machine is and how busy it is.

Torch-free and importable at no cost: psutil, pynvml and archspec are imported by the calls that need them.
A figure that cannot be had is None with a reason; nothing here raises because a sensor is missing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable

from engine.cgroup import CpuQuota, MemoryLimit, Roots, cpu_quota, memory_limits
from engine.facts import CoreLoad, Cpu, Fact, Gpu, GpuSample, Machine, Sample

__all__ = [
    "CoreLoad",
    "Cpu",
    "Fact",
    "Gpu",
    "GpuSample",
    "Machine",
    "Roots",
    "Sample",
    "Sampler",
    "available_memory_bytes",
    "identify",
    "usable_cpus",
    "usable_memory_bytes",
]

_HERE = Roots()
FIRST_READING = "a load needs two readings"


# --- what may be used -------------------------------------------------------------------------------------


def usable_cpus(roots: Roots = _HERE) -> int:
    """CPUs this process may keep busy: the smaller of its affinity and its control group's quota, at least 1."""
    return _usable(cpu_quota(roots), len(affinity_cpus()))


def _usable(quota: CpuQuota | None, affinity: int) -> int:
    return max(1, affinity if quota is None else min(affinity, int(quota.cpus)))


def affinity_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def available_memory_bytes(roots: Roots = _HERE) -> int:
    """Memory that can still be taken without swapping or being killed: the host's and every group's that holds us."""
    left = [limit.limit_bytes - limit.used_bytes for limit in memory_limits(roots)]
    return max(0, min([_host_memory_bytes(roots)[1], *left]))


def usable_memory_bytes(roots: Roots = _HERE) -> int:
    """Memory this process may use in total: the smaller of the host's and its control groups' limits."""
    return min([_host_memory_bytes(roots)[0], *(limit.limit_bytes for limit in memory_limits(roots))])


def _host_memory_bytes(roots: Roots) -> tuple[int, int]:
    """Total and available memory of the host."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        lines = (roots.proc / "meminfo").read_text().splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    import psutil

    memory = psutil.virtual_memory()
    return memory.total, memory.available


# --- what it is -------------------------------------------------------------------------------------------


def identify(roots: Roots = _HERE) -> Machine:
    """What this machine is. Takes some milliseconds, more where a driver has to wake its GPUs."""
    from engine.cpu import identify_cpu
    from engine.nvml import Gpus

    cpu, quota, affinity = identify_cpu(roots), cpu_quota(roots), len(affinity_cpus())
    memory, limits = _host_memory_bytes(roots)[0], memory_limits(roots)
    usable_memory = min([memory, *(limit.limit_bytes for limit in limits)])
    with contextlib.closing(Gpus()) as gpus:
        return Machine(
            host=platform.node() or "unnamed",
            os=_system(roots),
            cpu=cpu,
            runnable_cpus=affinity,
            usable_cpus=_usable(quota, affinity),
            usable_cpus_reason=_why_fewer_cpus(cpu.threads, affinity, quota),
            memory_bytes=memory,
            usable_memory_bytes=usable_memory,
            usable_memory_reason=_why_less_memory(memory, limits),
            gpus=gpus.identify(),
            no_gpu_reason=gpus.reason,
            driver_version=gpus.driver_version(),
            cuda_version=gpus.cuda_version(),
        )


def _why_fewer_cpus(threads: int, affinity: int, quota: CpuQuota | None) -> str:
    if quota is not None and quota.cpus < affinity:
        return "cgroup"
    return "affinity" if affinity < threads else ""


def _why_less_memory(memory_bytes: int, limits: list[MemoryLimit]) -> str:
    return "cgroup" if any(limit.limit_bytes < memory_bytes for limit in limits) else ""


def _system(roots: Roots) -> str:
    """Name and release of the system, as `Linux 6.8.0 (WSL)`."""
    try:
        release = (roots.proc / "sys/kernel/osrelease").read_text().strip()
    except OSError:
        return f"{platform.system()} {platform.release()}"
    is_wsl = "microsoft" in release.lower()
    return f"Linux {release.split('-')[0]}{' (WSL)' if is_wsl else ''}"


# --- how busy it is ---------------------------------------------------------------------------------------

CpuTimes = dict[int, tuple[float, float]]
"""Of each CPU, by number: busy and total time so far, in one unit."""


class Sampler:
    """Reads how busy the machine is. For one thread; a sick GPU can make a call hang.

    `roots` and `clock` (seconds) are the machine's own unless a test passes others.
    """

    def __init__(self, roots: Roots = _HERE, clock: Callable[[], float] = time.monotonic) -> None:
        from engine.nvml import Gpus

        self._roots = roots
        self._clock = clock
        self._quota = cpu_quota(roots)
        self._cpus = affinity_cpus()
        self._times: CpuTimes = {}
        self._used: tuple[float, float] | None = None
        self._gpus = Gpus()

    def sample(self) -> Sample:
        """The figures now; loads are of the time since the last call, and unknown in the first."""
        usable = usable_memory_bytes(self._roots)
        cores = self._core_loads()
        return Sample(
            cpu_percent=self._cpu_load(cores),
            core_percents=cores,
            memory_used_bytes=max(0, usable - available_memory_bytes(self._roots)),
            memory_usable_bytes=usable,
            gpus=self._gpus.sample(),
        )

    def close(self) -> None:
        """Let the driver go."""
        self._gpus.close()

    def _cpu_load(self, cores: tuple[CoreLoad, ...]) -> Fact[float]:
        """Under a quota the group's own use of it, else the mean of the CPUs this process may run on."""
        if self._quota is not None and self._quota.cpus < len(self._cpus):
            own = self._quota_load(self._quota)
            if own is not None:
                return own
        if not cores:
            return Fact(reason=FIRST_READING)
        return Fact(sum(core.percent for core in cores) / len(cores))

    def _quota_load(self, quota: CpuQuota) -> Fact[float] | None:
        """None where the kernel does not count the group's time."""
        used = quota.used_seconds()
        if used is None:
            return None
        now, last = self._clock(), self._used
        self._used = (now, used)
        if last is None or now <= last[0]:
            return Fact(reason=FIRST_READING)
        return Fact(_percent(used - last[1], (now - last[0]) * quota.cpus))

    def _core_loads(self) -> tuple[CoreLoad, ...]:
        last, self._times = self._times, _cpu_times(self._roots)
        loads = []
        for cpu in self._cpus:
            if cpu in last and cpu in self._times:  # a CPU can go offline
                (busy, total), (busy_before, total_before) = self._times[cpu], last[cpu]
                if total > total_before:
                    loads.append(CoreLoad(cpu, _percent(busy - busy_before, total - total_before)))
        return tuple(loads)


def _percent(part: float, whole: float) -> float:
    return min(100.0, max(0.0, 100 * part / whole))


def _cpu_times(roots: Roots) -> CpuTimes:
    try:
        lines = (roots.proc / "stat").read_text().splitlines()
    except OSError:
        return _cpu_times_by_psutil()
    return {int(line[3 : line.index(" ")]): _busy(line) for line in lines if line[:3] == "cpu" and line[3:4].isdigit()}


def _busy(line: str) -> tuple[float, float]:
    """Busy and total ticks of a line of /proc/stat; guest time is in user time already."""
    ticks = [int(word) for word in line.split()[1:9]]
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def _cpu_times_by_psutil() -> CpuTimes:
    import psutil

    times = psutil.cpu_times(percpu=True)
    return {number: (sum(each) - each.idle, sum(each)) for number, each in enumerate(times)}
