"""How busy the CPUs and one process are: differences between two readings of the kernel's counters.

This module is also sent to other machines (:mod:`epochtop.remote`), so it works with Python 3.9. Where the kernel has no /proc,
the calls that need it import psutil. Never imports torch.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from epochtop.engine.hardware import limits
from epochtop.engine.hardware.cgroups import Roots, cpu_quota

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from epochtop.engine.hardware.cgroups import CpuQuota

_HERE = Roots()

CpuTimes = dict[int, tuple[float, float]]
"""Busy and total time of each CPU so far, by its number, in the same unit."""


class CpuUse(NamedTuple):
    """Load since the last reading."""

    percent: float | None
    """Load of all usable CPUs together, 0 to 100; None in the first reading."""
    cores: dict[int, float]
    """Load of each CPU this process may run on, by its number; empty in the first reading."""


class CpuLoad:
    """Reads the load of the CPUs this process may run on. `clock` gives seconds."""

    def __init__(self, roots: Roots = _HERE, clock: Callable[[], float] = time.monotonic) -> None:
        self._roots, self._clock = roots, clock
        self._quota = cpu_quota(roots)
        self._cpus = limits.affinity_cpus()
        self._times: CpuTimes = {}
        self._used: tuple[float, float] | None = None

    def read(self) -> CpuUse:
        """The load since the last call: of the quota if there is one, else the mean of the CPUs this process may run on."""
        cores = self._core_loads()
        if self._quota is not None and self._quota.cpus < len(self._cpus):
            used = self._quota.used_seconds()
            if used is not None:  # the kernel counts the group's time
                return CpuUse(self._quota_load(self._quota, used), cores)
        return CpuUse(sum(cores.values()) / len(cores) if cores else None, cores)

    def _quota_load(self, quota: CpuQuota, used: float) -> float | None:
        now, last = self._clock(), self._used
        self._used = (now, used)
        if last is None or now <= last[0]:
            return None
        return _percent(used - last[1], (now - last[0]) * quota.cpus)

    def _core_loads(self) -> dict[int, float]:
        last, self._times = self._times, _cpu_times(self._roots)
        loads = {}
        for cpu in self._cpus:
            if cpu in last and cpu in self._times:  # a CPU can go offline
                (busy, total), (busy_before, total_before) = self._times[cpu], last[cpu]
                if total > total_before:
                    loads[cpu] = _percent(busy - busy_before, total - total_before)
        return loads


class ProcessLoad:
    """Reads the load of one process at a time. `clock` gives seconds."""

    def __init__(self, roots: Roots = _HERE, clock: Callable[[], float] = time.monotonic) -> None:
        self._roots, self._clock = roots, clock
        self._last: tuple[int, float, float] | None = None

    def read(self, pid: int) -> tuple[float | None, int]:
        """CPU use of a process since the last call (100 is one busy CPU; None in the first), and its resident bytes.

        Raises OSError, ValueError or IndexError if the process is not visible.
        """
        now = self._clock()
        cpu_s, memory = process_use(pid, self._roots)
        last, self._last = self._last, (pid, now, cpu_s)
        if last is None or last[0] != pid or now <= last[1]:
            return None, memory
        return max(0.0, 100 * (cpu_s - last[2]) / (now - last[1])), memory


def process_use(pid: int, roots: Roots = _HERE) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process. Raises OSError if it is not visible."""
    try:
        words = (roots.proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        if (roots.proc / "stat").exists():
            raise
        return _process_use_by_psutil(pid)
    ticks = int(words[11]) + int(words[12])  # utime and stime, the 14th and 15th of proc(5)
    return ticks / os.sysconf("SC_CLK_TCK"), int(words[21]) * os.sysconf("SC_PAGE_SIZE")


def _process_use_by_psutil(pid: int) -> tuple[float, int]:
    import psutil

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss
    except psutil.Error as error:
        raise OSError(str(error)) from None


def _percent(part: float, total: float) -> float:
    return min(100.0, max(0.0, 100 * part / total))


def _cpu_times(roots: Roots) -> CpuTimes:
    try:
        lines = (roots.proc / "stat").read_text().splitlines()
    except OSError:
        return _cpu_times_by_psutil()
    return {int(line[3 : line.index(" ")]): _busy(line) for line in lines if line[:3] == "cpu" and line[3:4].isdigit()}


def _busy(line: str) -> tuple[float, float]:
    """Busy and total ticks in a line of /proc/stat; user time includes guest time."""
    ticks = [int(word) for word in line.split()[1:9]]
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def _cpu_times_by_psutil() -> CpuTimes:
    import psutil

    times = psutil.cpu_times(percpu=True)
    return {number: (sum(cpu) - cpu.idle, sum(cpu)) for number, cpu in enumerate(times)}
