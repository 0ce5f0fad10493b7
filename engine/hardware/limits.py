"""How much of the machine this process may use: CPUs and memory, by affinity and control groups."""

from __future__ import annotations

import contextlib
import os

from epochtop.engine.hardware.cgroups import CpuQuota, MemoryLimit, Roots, cpu_quota, memory_limits

_HERE = Roots()


def usable_cpus(roots: Roots = _HERE) -> int:
    """CPUs this process may keep busy: the smaller of its affinity and its control group's quota, at least 1."""
    return limited(cpu_quota(roots), len(affinity_cpus()))


def limited(quota: CpuQuota | None, affinity: int) -> int:
    """The smaller of the two, at least 1."""
    return max(1, affinity if quota is None else min(affinity, int(quota.cpus)))


def affinity_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def why_fewer_cpus(threads: int, affinity: int, quota: CpuQuota | None) -> str:
    """`cgroup` or `affinity`; empty when all threads may be used."""
    if quota is not None and quota.cpus < affinity:
        return "cgroup"
    return "affinity" if affinity < threads else ""


def available_memory_bytes(roots: Roots = _HERE) -> int:
    """Memory that can still be taken without swapping or being killed: the host's and every group's that holds us."""
    left = [limit.limit_bytes - limit.used_bytes for limit in memory_limits(roots)]
    return max(0, min([host_memory_bytes(roots)[1], *left]))


def usable_memory_bytes(roots: Roots = _HERE) -> int:
    """Memory this process may use in total: the smaller of the host's and its control groups' limits."""
    return min([host_memory_bytes(roots)[0], *(limit.limit_bytes for limit in memory_limits(roots))])


def why_less_memory(memory_bytes: int, limits: list[MemoryLimit]) -> str:
    """`cgroup`; empty when all of the host's memory may be used."""
    return "cgroup" if any(limit.limit_bytes < memory_bytes for limit in limits) else ""


def host_memory_bytes(roots: Roots = _HERE) -> tuple[int, int]:
    """Total and available memory of the host."""
    with contextlib.suppress(KeyError):
        table = meminfo_bytes(roots)
        return table["MemTotal"], table["MemAvailable"]
    import psutil

    memory = psutil.virtual_memory()
    return memory.total, memory.available


def swap_bytes(roots: Roots = _HERE) -> tuple[int, int]:
    """Swap in use and in total; 0 in total is a host without swap."""
    with contextlib.suppress(KeyError):
        table = meminfo_bytes(roots)
        return table["SwapTotal"] - table["SwapFree"], table["SwapTotal"]
    if (roots.proc / "meminfo").exists():
        return 0, 0  # a kernel built without swap says nothing of it
    import psutil

    swap = psutil.swap_memory()
    return swap.used, swap.total


def meminfo_bytes(roots: Roots) -> dict[str, int]:
    """The sizes in /proc/meminfo; empty where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (roots.proc / "meminfo").read_text().splitlines()
        return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return {}
