"""The facts that the panel and the full page draw."""

from __future__ import annotations

from dataclasses import dataclass, field

from epochtop.engine.hardware import Gpu, Machine, Sample
from epochtop.engine.protocol.requests import Ready
from epochtop.tui.cells.gauges import Histories, Limits
from epochtop.tui.state.telemetry import RunTelemetry

PCIE_MBS = {1: 250, 2: 500, 3: 985, 4: 1969, 5: 3938, 6: 7563}
"""MB/s of one PCIe lane, by generation: PCI-SIG's transfer rates minus the encoding."""
NVLINK_KBS = 450e6 / 1.024
"""The 100 % of NVLink graphs, in KiB/s: 450 GB/s per direction, all links of a Hopper GPU together."""


@dataclass
class MachineView:
    """Machine, newest sample, history, software and run, and which GPU is selected."""

    machine: Machine | None = None
    sample: Sample | None = None
    histories: Histories = field(default_factory=Histories)
    ready: Ready | None = None
    run: RunTelemetry | None = None
    run_memory: str = ""
    """Planned and peak memory of the run."""
    selected: int = 0
    """Position of the selected GPU in the machine's list."""
    starts_engines: bool = True
    """Whether engines of this app run there, which report what is installed."""
    stale: bool = False
    """Whether the sample is out of date."""

    def add(self, sample: Sample) -> None:
        """Add a sample; the graphs grow by it."""
        self.sample = sample
        self.histories.add(sample, limits(self.machine))

    def select(self, by: int) -> None:
        """Select the GPU that is `by` positions further, wrapping at the ends."""
        count = len(self.machine.gpus) if self.machine else 0
        self.selected = (self.selected + by) % count if count else 0

    @property
    def gpu(self) -> Gpu | None:
        """The selected GPU."""
        return self.machine.gpus[self.selected] if self.machine and self.machine.gpus else None


def limits(machine: Machine | None) -> Limits:
    """The 100 % of the figures that are not percentages."""
    if machine is None:
        return {}
    result: Limits = {"engine": 100.0 * machine.usable_cpus}
    for gpu in machine.gpus:
        lanes = PCIE_MBS.get(gpu.pcie_generation_max.value or 0, 0) * (gpu.pcie_width_max.value or 0)
        result["temperature", gpu.index] = gpu.temperature_limit_c.value or 100.0
        result["clock", gpu.index] = gpu.sm_clock_max_mhz.value or 0
        result["sent", gpu.index] = result["received", gpu.index] = lanes * 1e6 / 1024
        result["link sent", gpu.index] = result["link received", gpu.index] = NVLINK_KBS
    return result
