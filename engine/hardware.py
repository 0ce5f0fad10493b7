"""What this machine is and how busy it is.

Torch-free and importable at no cost: psutil, pynvml and archspec are imported by the calls that need them.
A figure that cannot be had is None with a reason; nothing here raises because a sensor is missing.
"""

from __future__ import annotations

import contextlib
import os

from engine.cgroup import Roots, cpu_quota, memory_limits

__all__ = ["Roots", "available_memory_bytes", "usable_cpus", "usable_memory_bytes"]

_HERE = Roots()


def usable_cpus(roots: Roots = _HERE) -> int:
    """CPUs this process may keep busy: the smaller of its affinity and its control group's quota, at least 1."""
    quota = cpu_quota(roots)
    affinity = len(affinity_cpus())
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
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (roots.proc / "meminfo").read_text().splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    import psutil

    memory = psutil.virtual_memory()
    return memory.total, memory.available
