"""All that the screen knows of the machine: what both the panel and the full page draw."""

from __future__ import annotations

from dataclasses import dataclass, field

from epochtop.engine.hardware import Gpu, Machine, Sample
from epochtop.engine.protocol.requests import Ready
from epochtop.tui.cells.gauges import Histories, Limits
from epochtop.tui.state.telemetry import RunTelemetry

PCIE_MBS = {1: 250, 2: 500, 3: 985, 4: 1969, 5: 3938, 6: 7563}
"""10⁶ bytes a second of one PCIe lane, by generation: PCI-SIG's transfer rates less encoding."""
NVLINK_KBS = 450e6 / 1.024
"""What a graph of NVLink traffic is scaled to: 450 GB/s each way, a Hopper's links together."""


@dataclass
class MachineView:
    """Machine, newest sample, history, software and run; which GPU is looked at."""

    machine: Machine | None = None
    sample: Sample | None = None
    histories: Histories = field(default_factory=Histories)
    ready: Ready | None = None
    run: RunTelemetry | None = None
    run_memory: str = ""
    selected: int = 0
    stale: bool = False

    def add(self, sample: Sample) -> None:
        """A new sample; it goes into the graphs."""
        self.sample = sample
        self.histories.add(sample, limits(self.machine))

    def select(self, by: int) -> None:
        """Look at another GPU, `by` places on; round at the ends."""
        count = len(self.machine.gpus) if self.machine else 0
        self.selected = (self.selected + by) % count if count else 0

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that is looked at."""
        return self.machine.gpus[self.selected] if self.machine and self.machine.gpus else None


def limits(machine: Machine | None) -> Limits:
    """What a full graph stands for, where it is not a percentage already."""
    if machine is None:
        return {}
    found: Limits = {"engine": 100.0 * machine.usable_cpus}
    for gpu in machine.gpus:
        lanes = PCIE_MBS.get(gpu.pcie_generation_max.value or 0, 0) * (gpu.pcie_width_max.value or 0)
        found["temperature", gpu.index] = gpu.temperature_limit_c.value or 100.0
        found["clock", gpu.index] = gpu.sm_clock_max_mhz.value or 0
        found["sent", gpu.index] = found["received", gpu.index] = lanes * 1e6 / 1024
        found["link sent", gpu.index] = found["link received", gpu.index] = NVLINK_KBS
    return found
