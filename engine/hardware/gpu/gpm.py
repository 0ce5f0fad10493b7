"""The real use of a GPU: GPM, NVML's performance monitor, on Hopper and later.

"Utilization" is the time in which any kernel ran: a single kernel of one thread block makes it 100 %. GPM measures busy
multiprocessors, tensor cores and memory bandwidth between two readings. Never imports torch.
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
    """Use of multiprocessors, tensor cores and memory bandwidth in percent."""

    sm: Fact[float]
    tensor: Fact[float]
    dram: Fact[float]


class Gpm:
    """Reads the use of each GPU since its previous reading. For one thread."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._before: dict[int, Any] = {}

    def read(self, index: int) -> RealUse:
        """The use of a GPU since the last call."""
        driver = self._driver
        if reason := driver.why_no_use(index):
            return _unknown(reason)
        support = driver.ask_gpu(index, "gpm", self._is_supported)
        if not support.value:
            is_old = support.reason in ("", NOT_SUPPORTED, TOO_OLD)
            return _unknown(OLD_CARD if is_old else support.reason)
        sample = driver.ask_gpu(index, "gpm sample", self._take_sample)
        if sample.value is None:
            return _unknown(sample.reason)
        before, self._before[index] = self._before.get(index), sample.value
        if before is None:
            return _unknown(FIRST_READING)
        metrics = driver.ask_gpu(index, "gpm metrics", lambda _gpu: self._compare(before, sample.value))
        driver.ask(lambda: driver.nvml.nvmlGpmSampleFree(before))
        return metrics.value if metrics.value is not None else _unknown(metrics.reason)

    def _is_supported(self, gpu: Any) -> bool:
        return bool(self._driver.nvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice)

    def _take_sample(self, gpu: Any) -> Any:
        nvml = self._driver.nvml
        sample = nvml.nvmlGpmSampleAlloc()
        try:
            return nvml.nvmlGpmSampleGet(gpu, sample)
        except nvml.NVMLError:
            nvml.nvmlGpmSampleFree(sample)
            raise

    def _compare(self, before: Any, after: Any) -> RealUse:
        nvml = self._driver.nvml
        query = nvml.c_nvmlGpmMetricsGet_t()
        query.version, query.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, 3
        query.sample1, query.sample2 = before, after
        for place, metric in enumerate((_SM, _TENSOR, _DRAM)):
            query.metrics[place].metricId = metric
        nvml.nvmlGpmMetricsGet(query)
        return RealUse(*(self._one(query.metrics[place]) for place in range(3)))

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
