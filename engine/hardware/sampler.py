"""Samples the load of CPUs, memory, the engine process and GPUs; cheap enough for once a second. Never imports torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from epochtop.engine.hardware import limits
from epochtop.engine.hardware.cgroups import CpuQuota, Roots, cpu_quota
from epochtop.engine.hardware.environment import container
from epochtop.engine.hardware.facts import CoreLoad, EngineLoad, Fact, Sample
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.watchdog import GpuWatch

FIRST_READING = "a load needs two readings"
PATIENCE_S = 0.5
"""Seconds that a sample waits for the driver. Eight GPUs took up to 0.2 s, 20 ms of it each for NVML's PCIe counters."""

CpuTimes = dict[int, tuple[float, float]]
"""Busy and total time of each CPU so far, by its number, in the same unit."""


class Sampler:
    """Samples the machine's load, from one thread. A driver that hangs delays each sample by PATIENCE_S.

    Tests pass other `roots` and another `clock` (seconds). Set `engine_pid` to include the load of that process.
    """

    def __init__(self, roots: Roots = Roots(), clock: Callable[[], float] = time.monotonic) -> None:  # noqa: B008 - frozen
        self._roots = roots
        self._clock = clock
        self._quota = cpu_quota(roots)
        self._cpus = limits.affinity_cpus()
        self._times: CpuTimes = {}
        self._used: tuple[float, float] | None = None
        self._engine: tuple[int, float, float] | None = None
        self.engine_pid: int | None = None
        self.gpus = GpuWatch(Processes(roots, container(roots)))

    def sample(self, patience_s: float = PATIENCE_S) -> Sample:
        """The load since the last call; unknown in the first one."""
        total = limits.usable_memory_bytes(self._roots)
        cores = self._core_loads()
        swap_used, swap_total = limits.swap_bytes(self._roots)
        gpus, age_s = self.gpus.sample(patience_s)
        return Sample(
            cpu_percent=self._cpu_load(cores),
            core_percents=cores,
            memory_used_bytes=max(0, total - limits.available_memory_bytes(self._roots)),
            memory_usable_bytes=total,
            swap_used_bytes=Fact(swap_used) if swap_total else Fact(reason="no swap on this machine"),
            swap_total_bytes=Fact(swap_total) if swap_total else Fact(reason="no swap on this machine"),
            engine=self._engine_load(self.engine_pid),
            gpus=gpus,
            gpu_age_s=age_s,
            gpu_count=self.gpus.count,
            gpus_identified=self.gpus.identified,
        )

    def close(self) -> None:
        """Disconnect from the driver."""
        self.gpus.close()

    # --- CPUs ---

    def _cpu_load(self, cores: tuple[CoreLoad, ...]) -> Fact[float]:
        """Use of the quota if there is one, else the mean load of the CPUs this process may run on."""
        if self._quota is not None and self._quota.cpus < len(self._cpus):
            load = self._quota_load(self._quota)
            if load is not None:
                return load
        if not cores:
            return Fact(reason=FIRST_READING)
        return Fact(sum(core.percent for core in cores) / len(cores))

    def _quota_load(self, quota: CpuQuota) -> Fact[float] | None:
        """None if the kernel does not count the group's time."""
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

    # --- the engine ---

    def _engine_load(self, pid: int | None) -> EngineLoad | None:
        if pid is None:
            return None
        now = self._clock()
        try:
            cpu_s, memory = process_use(pid, self._roots)
        except (OSError, ValueError, IndexError):
            hidden = "its process is not visible from here"
            return EngineLoad(pid=pid, cpu_percent=Fact(reason=hidden), memory_bytes=Fact(reason=hidden))
        before, self._engine = self._engine, (pid, now, cpu_s)
        load = Fact[float](reason=FIRST_READING)
        if before is not None and before[0] == pid and now > before[1]:
            load = Fact(max(0.0, 100 * (cpu_s - before[2]) / (now - before[1])))
        return EngineLoad(pid=pid, cpu_percent=load, memory_bytes=Fact(memory))


def process_use(pid: int, roots: Roots = Roots()) -> tuple[float, int]:  # noqa: B008 - frozen
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
