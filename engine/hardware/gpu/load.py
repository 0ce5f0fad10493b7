"""Reads the load of GPUs. Each field can be unknown on its own. Never imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from epochtop.engine.hardware.facts import Fact, GpuSample
from epochtop.engine.hardware.gpu.bounds import plausible
from epochtop.engine.hardware.gpu.gpm import FIRST_READING, Gpm
from epochtop.engine.hardware.gpu.health import HealthReader, problems
from epochtop.engine.hardware.gpu.nvml import Driver, mapped
from epochtop.engine.hardware.gpu.processes import Processes

_SLOWED_BY = (
    (0x04, "power limit"),
    (0x08, "hardware slowdown"),
    (0x10, "sync with other GPUs"),
    (0x20, "temperature"),
    (0x40, "temperature (hardware)"),
    (0x80, "power brake"),
    (0x02, "application clocks"),
    (0x100, "display clocks"),
)
"""nvmlClocksEventReason* of nvml.h, without "GPU is idle", which is not a slowdown."""
_POLICIES = ((3, "board power limit"), (5, "reliability limit"))
"""NVML_PERF_POLICY_BOARD_LIMIT and _RELIABILITY, which have no bit of their own."""
_ALL_LINKS = 0xFFFFFFFF
_SENT, _RECEIVED = 138, 139
"""NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX and _RX: KiB since the driver was loaded."""


class GpuLoads:
    """Reads the load of a driver's GPUs. `clock` gives seconds."""

    def __init__(self, driver: Driver, processes: Processes, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver, self._processes, self._clock = driver, processes, clock
        self._gpm, self._health = Gpm(driver), HealthReader(driver)
        self._violations: dict[tuple[int, int], int] = {}
        self._links: dict[int, tuple[float, int, int]] = {}

    def sample(self, indices: Iterable[int]) -> tuple[GpuSample, ...]:
        """The current load of these GPUs."""
        return tuple(self._sample(index) for index in indices)

    def _sample(self, index: int) -> GpuSample:
        driver, nvml = self._driver, self._driver.nvml
        used, reserved, total = driver.memory(index)
        real = self._gpm.read(index)
        sent, received = self._nvlink(index)
        load = GpuSample(
            index=index,
            utilization_percent=self._utilization(index),
            sm_percent=real.sm,
            tensor_percent=real.tensor,
            dram_percent=real.dram,
            memory_used_bytes=used,
            memory_reserved_bytes=reserved,
            memory_total_bytes=total,
            temperature_c=driver.ask_gpu(index, "temperature", self._temperature),
            power_w=mapped(driver.call(index, "nvmlDeviceGetPowerUsage"), _thousandth),
            power_limit_w=mapped(driver.call(index, "nvmlDeviceGetEnforcedPowerLimit"), _thousandth),
            sm_clock_mhz=driver.call(index, "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_clock_mhz=driver.call(index, "nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            slowed_by=self._slowed_by(index),
            fan_percent=mapped(driver.call(index, "nvmlDeviceGetFanSpeed"), float),
            pcie_generation=driver.call(index, "nvmlDeviceGetCurrPcieLinkGeneration"),
            pcie_width=driver.call(index, "nvmlDeviceGetCurrPcieLinkWidth"),
            pcie_sent_kbs=self._pcie(index, nvml.NVML_PCIE_UTIL_TX_BYTES),
            pcie_received_kbs=self._pcie(index, nvml.NVML_PCIE_UTIL_RX_BYTES),
            nvlink_sent_kbs=sent,
            nvlink_received_kbs=received,
            ecc_corrected=self._ecc_errors(index, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._ecc_errors(index, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            processes=self._processes.of(driver, index),
        )
        health = self._health.read(index)
        return plausible(
            msgspec.structs.replace(
                load, **health._asdict(), problems=problems(index, self._driver.errors(index), health)
            )
        )

    def _slowed_by(self, index: int) -> Fact[tuple[str, ...]]:
        """What the driver says holds the clocks back, and the limits that did since the last sample."""
        events = mapped(self._driver.ask_gpu(index, "clocks", self._clock_events), slowed_by)
        limits = tuple(name for policy, name in _POLICIES if self._was_limited(index, policy))
        return Fact((*events.value, *limits)) if events.value is not None else events

    def _was_limited(self, index: int, policy: int) -> bool:
        """Whether a limit held for longer than at the last sample."""
        time_ns = self._driver.call(index, "nvmlDeviceGetViolationStatus", policy).value
        if time_ns is None:
            return False
        before = self._violations.get((index, policy))
        self._violations[index, policy] = time_ns.violationTime
        return before is not None and time_ns.violationTime > before

    def _utilization(self, index: int) -> Fact[float]:
        if reason := self._driver.why_no_use(index):
            return Fact(reason=reason)  # some drivers answer 0 for a GPU with MIG instances
        return mapped(self._driver.call(index, "nvmlDeviceGetUtilizationRates"), lambda rates: float(rates.gpu))

    def _temperature(self, gpu: Any) -> float:
        nvml = self._driver.nvml
        try:
            return float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
        except nvml.NVMLError_FunctionNotFound:  # deprecated, to be removed with CUDA 14
            return float(nvml.nvmlDeviceGetTemperatureV(gpu, nvml.NVML_TEMPERATURE_GPU))

    def _clock_events(self, gpu: Any) -> int:
        nvml = self._driver.nvml
        try:
            return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))
        except nvml.NVMLError_FunctionNotFound:  # drivers before 535 know only the older name
            return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))

    def _pcie(self, index: int, counter: int) -> Fact[float]:
        return mapped(self._driver.call(index, "nvmlDeviceGetPcieThroughput", counter), float)

    def _ecc_errors(self, index: int, kind: int) -> Fact[int]:
        return self._driver.call(index, "nvmlDeviceGetTotalEccErrors", kind, self._driver.nvml.NVML_VOLATILE_ECC)

    def _nvlink(self, index: int) -> tuple[Fact[float], Fact[float]]:
        counters = self._driver.ask_gpu(index, "nvlink", self._link_counters)
        if counters.value is None:
            return Fact(reason=counters.reason), Fact(reason=counters.reason)
        now, before = (self._clock(), *counters.value), self._links.get(index)
        self._links[index] = now
        if before is None or now[0] <= before[0]:
            return Fact(reason=FIRST_READING), Fact(reason=FIRST_READING)
        seconds = now[0] - before[0]
        return Fact((now[1] - before[1]) / seconds), Fact((now[2] - before[2]) / seconds)

    def _link_counters(self, gpu: Any) -> tuple[int, int]:
        """KiB sent and received over all links. Raises NVMLError."""
        nvml = self._driver.nvml
        sent, received = nvml.nvmlDeviceGetFieldValues(gpu, [(_SENT, _ALL_LINKS), (_RECEIVED, _ALL_LINKS)])
        for field in (sent, received):
            if field.nvmlReturn:
                raise nvml.NVMLError(field.nvmlReturn)
        return int(sent.value.ullVal), int(received.value.ullVal)


def slowed_by(bits: int) -> tuple[str, ...]:
    """The reasons for reduced clocks in NVML's bit mask."""
    return tuple(name for bit, name in _SLOWED_BY if bits & bit)


def _thousandth(number: float) -> float:
    return number / 1000
