"""Samples the load of CPUs, memory, the engine process and GPUs; cheap enough for once a second. Never imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable

from epochtop.engine.hardware import limits
from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu.load import CpuLoad, ProcessLoad
from epochtop.engine.hardware.environment import container
from epochtop.engine.hardware.facts import CoreLoad, EngineLoad, Fact, Sample
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.watchdog import GpuWatch

FIRST_READING = "a load needs two readings"
HIDDEN_PROCESS = "its process is not visible from here"
NO_SWAP = "no swap on this machine"
PATIENCE_S = 0.5
"""Seconds that a sample waits for the driver. Eight GPUs took up to 0.2 s, 20 ms of it each for NVML's PCIe counters."""


class Sampler:
    """Samples the machine's load, from one thread. A driver that hangs delays each sample by PATIENCE_S.

    Tests pass other `roots` and another `clock` (seconds). Set `engine_pid` to include the load of that process.
    """

    def __init__(self, roots: Roots = Roots(), clock: Callable[[], float] = time.monotonic) -> None:  # noqa: B008 - frozen
        self._roots = roots
        self._cpus, self._engine = CpuLoad(roots, clock), ProcessLoad(roots, clock)
        self.engine_pid: int | None = None
        self.gpus = GpuWatch(Processes(roots, container(roots)))

    def sample(self, patience_s: float = PATIENCE_S) -> Sample:
        """The load since the last call; unknown in the first one."""
        total = limits.usable_memory_bytes(self._roots)
        cpu = self._cpus.read()
        swap_used, swap_total = limits.swap_bytes(self._roots)
        gpus, age_s = self.gpus.sample(patience_s)
        return Sample(
            cpu_percent=load_of(cpu.percent),
            core_percents=tuple(CoreLoad(*core) for core in cpu.cores.items()),
            memory_used_bytes=max(0, total - limits.available_memory_bytes(self._roots)),
            memory_usable_bytes=total,
            swap_used_bytes=Fact(swap_used) if swap_total else Fact(reason=NO_SWAP),
            swap_total_bytes=Fact(swap_total) if swap_total else Fact(reason=NO_SWAP),
            engine=self._engine_load(self.engine_pid),
            gpus=gpus,
            gpu_age_s=age_s,
            gpu_count=self.gpus.count,
            gpus_identified=self.gpus.identified,
        )

    def close(self) -> None:
        """Disconnect from the driver."""
        self.gpus.close()

    def _engine_load(self, pid: int | None) -> EngineLoad | None:
        if pid is None:
            return None
        try:
            percent, memory = self._engine.read(pid)
        except (OSError, ValueError, IndexError):
            return hidden_engine(pid)
        return EngineLoad(pid=pid, cpu_percent=load_of(percent), memory_bytes=Fact(memory))


def load_of(percent: float | None) -> Fact[float]:
    """A load that is unknown in the first reading."""
    return Fact(reason=FIRST_READING) if percent is None else Fact(percent)


def hidden_engine(pid: int) -> EngineLoad:
    """The load of a process that is not visible."""
    return EngineLoad(pid=pid, cpu_percent=Fact(reason=HIDDEN_PROCESS), memory_bytes=Fact(reason=HIDDEN_PROCESS))
