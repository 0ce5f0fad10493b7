"""How much of a GPU is really used: GPM, NVML's performance monitor, on Hopper and later.

"Utilization" says that some kernel ran. One kernel of one thread block makes it 100 %. GPM counts the
multiprocessors, the tensor cores and the memory bandwidth that were busy, between two readings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from epochtop.engine.hardware.facts import Fact
from epochtop.engine.hardware.gpu.nvml import NOT_SUPPORTED, TOO_OLD, Driver

OLD_CARD = "needs a Hopper or later GPU"
FIRST_READING = "a rate needs two readings"
_SM, _TENSOR, _DRAM = 2, 5, 10
"""NVML_GPM_METRIC_SM_UTIL, _ANY_TENSOR_UTIL, _DRAM_BW_UTIL."""


class RealUse(NamedTuple):
    """Percentages; unknown ones with one reason or several."""

    sm: Fact[float]
    tensor: Fact[float]
    dram: Fact[float]


class Gpm:
    """Keeps the reading before of each GPU. One thread only."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._before: dict[int, Any] = {}

    def read(self, index: int) -> RealUse:
        """The use since the last call."""
        driver = self._driver
        if reason := driver.why_no_use(index):
            return _unknown(reason)
        support = driver.ask_gpu(index, "gpm", self._is_supported)
        if not support.value:
            old = support.reason in ("", NOT_SUPPORTED, TOO_OLD)
            return _unknown(OLD_CARD if old else support.reason)
        taken = driver.ask_gpu(index, "gpm sample", self._take)
        if taken.value is None:
            return _unknown(taken.reason)
        before, self._before[index] = self._before.get(index), taken.value
        if before is None:
            return _unknown(FIRST_READING)
        metrics = driver.ask_gpu(index, "gpm metrics", lambda _gpu: self._compare(before, taken.value))
        driver.ask(lambda: driver.nvml.nvmlGpmSampleFree(before))
        return metrics.value if metrics.value is not None else _unknown(metrics.reason)

    def _is_supported(self, gpu: Any) -> bool:
        return bool(self._driver.nvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice)

    def _take(self, gpu: Any) -> Any:
        nvml = self._driver.nvml
        sample = nvml.nvmlGpmSampleAlloc()
        try:
            return nvml.nvmlGpmSampleGet(gpu, sample)
        except nvml.NVMLError:
            nvml.nvmlGpmSampleFree(sample)
            raise

    def _compare(self, before: Any, after: Any) -> RealUse:
        nvml = self._driver.nvml
        asked = nvml.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, 3
        asked.sample1, asked.sample2 = before, after
        for place, metric in enumerate((_SM, _TENSOR, _DRAM)):
            asked.metrics[place].metricId = metric
        nvml.nvmlGpmMetricsGet(asked)
        return RealUse(*(self._one(asked.metrics[place]) for place in range(3)))

    def _one(self, metric: Any) -> Fact[float]:
        nvml = self._driver.nvml

        def value() -> float:
            if metric.nvmlReturn:
                raise nvml.NVMLError(metric.nvmlReturn)
            return float(metric.value)

        return self._driver.ask(value)


def _unknown(reason: str) -> RealUse:
    fact = Fact[float](reason=reason)
    return RealUse(fact, fact, fact)
