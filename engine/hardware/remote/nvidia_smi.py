"""GPUs by the lines of nvidia-smi that another machine sends (:mod:`epochtop.remote.gpus`). Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epochtop.engine.hardware.facts import Fact, Gpu, GpuName, GpuSample
from epochtop.engine.hardware.gpu.bounds import plausible
from epochtop.engine.hardware.gpu.child import GpuInventory
from epochtop.engine.hardware.gpu.names import read_name
from epochtop.engine.terminal.plain import plain_line
from epochtop.remote.gpus import FIELDS

MIB = 1 << 20
NOT_IN_QUERY = "not asked over ssh"
NO_VALUES = ("", "N/A", "[N/A]", "[Not Supported]", "[NotSupported]")


class GpuLine:
    """The fields of one line."""

    def __init__(self, line: str) -> None:
        """Raises ValueError for a line with other fields."""
        texts = [text.strip() for text in plain_line(line).split(",")]
        if len(texts) != len(FIELDS):
            raise ValueError(f"nvidia-smi printed {len(texts)} fields, not {len(FIELDS)}")
        self._texts = dict(zip(FIELDS, texts, strict=True))

    @property
    def index(self) -> int:
        """Number of the GPU. Raises ValueError."""
        return int(self._texts["index"])

    def text(self, name: str) -> Fact[str]:
        """A field as it is; `[N/A]` and the like are reasons."""
        text = self._texts[name]
        if text in NO_VALUES:
            return Fact(reason="not reported")
        return Fact(reason=text.strip("[]").lower()) if text.startswith("[") else Fact(text)

    def number(self, name: str, unit: int = 1) -> Fact[float]:
        """A field as a number, times `unit`."""
        fact = self.text(name)
        try:
            return Fact(reason=fact.reason) if fact.value is None else Fact(float(fact.value) * unit)
        except ValueError:
            return Fact(reason=f"not a number: {fact.value}")

    def whole(self, name: str, unit: int = 1) -> Fact[int]:
        """A field as a whole number, times `unit`."""
        fact = self.number(name, unit)
        return Fact(reason=fact.reason) if fact.value is None else Fact(int(fact.value))


def inventory_of(lines: Sequence[str], problem: str) -> GpuInventory:
    """The GPUs that nvidia-smi lists, or why there are none. Raises ValueError."""
    read = [GpuLine(line) for line in lines]
    reason = "" if read else plain_line(problem) or "not reported"
    return GpuInventory(
        gpus=tuple(map(_gpu, read)),
        reason=reason,
        driver_version=read[0].text("driver_version") if read else Fact(reason=reason),
        cuda_version=Fact(reason=NOT_IN_QUERY if read else reason),
    )


def samples_of(lines: Sequence[str]) -> tuple[GpuSample, ...]:
    """The load of each GPU. Raises ValueError."""
    return tuple(map(_sample, map(GpuLine, lines)))


def _gpu(line: GpuLine) -> Gpu:
    name = line.text("name")
    unknown: Fact[Any] = Fact(reason=NOT_IN_QUERY)
    return plausible(
        Gpu(
            index=line.index,
            name=name,
            uuid=line.text("uuid"),
            cuda_index=unknown,
            reading=read_name(name.value) if name.value is not None else GpuName(),
            architecture=unknown,
            compute_capability=unknown,
            multiprocessors=unknown,
            cuda_cores=unknown,
            memory_bytes=line.whole("memory.total", MIB),
            memory_bus_bits=unknown,
            memory_bandwidth_gbs=unknown,
            pcie_generation_max=line.whole("pcie.link.gen.max"),
            pcie_width_max=line.whole("pcie.link.width.max"),
            power_limit_default_w=unknown,
            power_limit_max_w=unknown,
            sm_clock_max_mhz=line.whole("clocks.max.sm"),
            memory_clock_max_mhz=line.whole("clocks.max.mem"),
            ecc=unknown,
            persistence=unknown,
            compute_mode=unknown,
            mig_devices=unknown,
        )
    )


def _sample(line: GpuLine) -> GpuSample:
    unknown: Fact[Any] = Fact(reason=NOT_IN_QUERY)
    return plausible(
        GpuSample(
            index=line.index,
            utilization_percent=line.number("utilization.gpu"),
            sm_percent=unknown,
            tensor_percent=unknown,
            dram_percent=unknown,
            memory_used_bytes=line.whole("memory.used", MIB),
            memory_total_bytes=line.whole("memory.total", MIB),
            temperature_c=line.number("temperature.gpu"),
            power_w=line.number("power.draw"),
            power_limit_w=line.number("power.limit"),
            sm_clock_mhz=line.whole("clocks.sm"),
            memory_clock_mhz=line.whole("clocks.mem"),
            slowed_by=unknown,
            fan_percent=line.number("fan.speed"),
            pcie_generation=unknown,
            pcie_width=unknown,
            pcie_sent_kbs=unknown,
            pcie_received_kbs=unknown,
            nvlink_sent_kbs=unknown,
            nvlink_received_kbs=unknown,
            ecc_corrected=unknown,
            ecc_uncorrected=unknown,
            processes=unknown,
            remapped_rows=unknown,
        )
    )
