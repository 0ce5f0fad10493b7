"""CPUs and memory that this process may use, by affinity and control groups.

This module is also sent to other machines (:mod:`epochtop.remote`), so it works with Python 3.9. Where the kernel has no /proc,
the calls that need it import psutil. Never imports torch.
"""

from __future__ import annotations

import contextlib
import os

from epochtop.engine.hardware.cgroups import Roots, cpu_quota, memory_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from epochtop.engine.hardware.cgroups import CpuQuota, MemoryLimit

_HERE = Roots()


def usable_cpus(roots: Roots = _HERE) -> int:
    """Number of CPUs this process may keep busy: the smaller of its affinity and its quota, at least 1."""
    return usable_count(cpu_quota(roots), len(affinity_cpus()))


def usable_count(quota: CpuQuota | None, affinity: int) -> int:
    """The smaller of an affinity and a quota in CPUs, at least 1."""
    return max(1, affinity if quota is None else min(affinity, int(quota.cpus)))


def affinity_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def why_fewer_cpus(threads: int, affinity: int, quota: CpuQuota | None) -> str:
    """`cgroup` or `affinity`; empty if all threads are usable."""
    if quota is not None and quota.cpus < affinity:
        return "cgroup"
    return "affinity" if affinity < threads else ""


def available_memory_bytes(roots: Roots = _HERE) -> int:
    """Memory that can be allocated without swapping or being killed, within the host and every control group."""
    free = [limit.limit_bytes - limit.used_bytes for limit in memory_limits(roots)]
    return max(0, min([host_memory_bytes(roots)[1], *free]))


def usable_memory_bytes(roots: Roots = _HERE) -> int:
    """Memory this process may use in total: the smallest of the host's memory and its control groups' limits."""
    return min([host_memory_bytes(roots)[0], *(limit.limit_bytes for limit in memory_limits(roots))])


def why_less_memory(memory_bytes: int, limits: list[MemoryLimit]) -> str:
    """`cgroup`; empty if all of the host's memory is usable."""
    return "cgroup" if any(limit.limit_bytes < memory_bytes for limit in limits) else ""


def host_memory_bytes(roots: Roots = _HERE) -> tuple[int, int]:
    """Total and available memory of the host, in bytes."""
    with contextlib.suppress(KeyError):
        table = meminfo_bytes(roots)
        return table["MemTotal"], table["MemAvailable"]
    import psutil

    memory = psutil.virtual_memory()
    return memory.total, memory.available


def swap_bytes(roots: Roots = _HERE) -> tuple[int, int]:
    """Swap in use and in total, in bytes; a total of 0 means no swap."""
    with contextlib.suppress(KeyError):
        table = meminfo_bytes(roots)
        return table["SwapTotal"] - table["SwapFree"], table["SwapTotal"]
    if (roots.proc / "meminfo").exists():
        return 0, 0  # a kernel built without swap has no such lines
    import psutil

    swap = psutil.swap_memory()
    return swap.used, swap.total


def meminfo_bytes(roots: Roots) -> dict[str, int]:
    """Sizes in /proc/meminfo by name; empty without such a file."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (roots.proc / "meminfo").read_text().splitlines()
        return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return {}
