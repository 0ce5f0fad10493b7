"""What NVIDIA's driver tells of the GPUs, every field asked by itself.

A machine without GPU or driver is normal and comes out as a reason. A card that fails, a field that a card
does not have, a library of another version: each is an unknown of its own and leaves the rest alone.
pynvml is imported by :class:`Gpus` only. Must not import torch or create a CUDA context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from engine.facts import Fact, Gpu, GpuSample

T = TypeVar("T")

NOT_SUPPORTED = "not supported by this card"
UNIFIED = "shares the system's memory"
MIG = "MIG is on"
MISMATCH = "driver and library differ in version: reboot or reload the driver"

_REASONS = {
    "LibraryNotFound": "no NVIDIA driver found",
    "DriverNotLoaded": "NVIDIA driver is not loaded",
    "LibRmVersionMismatch": MISMATCH,
    "NotSupported": NOT_SUPPORTED,
    "NoPermission": "no permission",
    "FunctionNotFound": "this driver is too old to tell",
    "ArgumentVersionMismatch": "this driver is too old to tell",
    "GpuIsLost": "GPU is lost: it needs a reset or a reboot",
    "ResetRequired": "GPU needs a reset",
    "Timeout": "GPU did not answer in time",
}
_FOR_GOOD = {NOT_SUPPORTED, _REASONS["FunctionNotFound"], UNIFIED}
"""Reasons that another question will not change."""


class Gpus:
    """An open line to the driver. Not for several threads at once; never raises for what the driver refuses."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], Fact[Any]] = {}
        self._handles: dict[int, Any] = {}
        self._is_open = False
        self.count = 0
        self.reason = self._open()
        """Why there are no GPUs; empty when there are some."""

    def _open(self) -> str:
        try:
            import pynvml
        except ImportError:
            return "the package nvidia-ml-py is not installed"
        self._nvml: Any = pynvml
        opened = self._ask(pynvml.nvmlInit)
        if opened.reason:
            return opened.reason
        self._is_open = True
        count = self._ask(pynvml.nvmlDeviceGetCount)
        self.count = count.value or 0
        return "" if self.count else count.reason or "driver found, but no NVIDIA GPU"

    def close(self) -> None:
        """Let the driver go."""
        if self._is_open:
            self._is_open = False
            self._ask(self._nvml.nvmlShutdown)

    # --- what they are ---

    def driver_version(self) -> Fact[str]:
        """Version of the kernel driver, as `550.54.14`."""
        return self._ask(self._nvml.nvmlSystemGetDriverVersion) if self._is_open else Fact(reason=self.reason)

    def cuda_version(self) -> Fact[str]:
        """The newest CUDA that the driver supports, as `12.4`."""
        if not self._is_open:
            return Fact(reason=self.reason)
        return self._ask(lambda: _cuda(self._nvml.nvmlSystemGetCudaDriverVersion()))

    def identify(self) -> tuple[Gpu, ...]:
        """Every GPU that the driver counts, also those that do not answer."""
        return tuple(self._identify(index) for index in range(self.count))

    def _identify(self, index: int) -> Gpu:
        nvml = self._nvml
        return Gpu(
            index=index,
            name=self._ask_gpu(index, "name", nvml.nvmlDeviceGetName),
            uuid=self._ask_gpu(index, "uuid", nvml.nvmlDeviceGetUUID),
            memory_bytes=self._memory(index)[1],
            mig=self._is_mig(index),
        )

    # --- how busy they are ---

    def sample(self) -> tuple[GpuSample, ...]:
        """The figures of every GPU now."""
        return tuple(self._sample(index) for index in range(self.count))

    def _sample(self, index: int) -> GpuSample:
        nvml = self._nvml
        used, total = self._memory(index)
        return GpuSample(
            index=index,
            utilization_percent=self._utilization(index),
            memory_used_bytes=used,
            memory_total_bytes=total,
            temperature_c=self._ask_gpu(index, "temperature", self._temperature),
            power_w=self._ask_gpu(index, "power", lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            power_limit_w=self._ask_gpu(
                index, "power limit", lambda gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000
            ),
        )

    def _utilization(self, index: int) -> Fact[float]:
        if self._is_mig(index):
            return Fact(reason=MIG)  # some drivers answer 0 for the parent
        return self._ask_gpu(index, "utilization", lambda gpu: float(self._nvml.nvmlDeviceGetUtilizationRates(gpu).gpu))

    def _is_mig(self, index: int) -> bool:
        mode = self._ask_gpu(index, "mig", lambda gpu: self._nvml.nvmlDeviceGetMigMode(gpu)[0])
        return bool(mode.value == self._nvml.NVML_DEVICE_MIG_ENABLE)

    def _temperature(self, gpu: Any) -> float:
        nvml = self._nvml
        try:
            return float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
        except nvml.NVMLError_FunctionNotFound:  # deprecated, to be removed with CUDA 14
            return float(nvml.nvmlDeviceGetTemperatureV(gpu, nvml.NVML_TEMPERATURE_GPU))

    def _memory(self, index: int) -> tuple[Fact[int], Fact[int]]:
        """Used and total memory in bytes, what the driver keeps for itself not counted as used."""
        both = self._ask_gpu(index, "memory", self._read_memory)
        if both.reason == NOT_SUPPORTED or (both.value and not both.value[1]):
            both = self._known[index, "memory"] = Fact(reason=UNIFIED)
        if both.value is None:
            return Fact(reason=both.reason), Fact(reason=both.reason)
        return Fact(both.value[0]), Fact(both.value[1])

    def _read_memory(self, gpu: Any) -> tuple[int, int]:
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
        except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_ArgumentVersionMismatch):
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        return memory.used, memory.total

    # --- asking ---

    def _ask_gpu(self, index: int, field: str, question: Callable[[Any], T]) -> Fact[T]:
        known = self._known.get((index, field))
        if known is not None:
            return known
        handle = self._handle(index)
        if handle.value is None:
            return Fact(reason=handle.reason)
        answer = self._ask(lambda: question(handle.value))
        if answer.reason in _FOR_GOOD:
            self._known[index, field] = answer
        return answer

    def _handle(self, index: int) -> Fact[Any]:
        if index not in self._handles:
            found = self._ask(lambda: self._nvml.nvmlDeviceGetHandleByIndex(index))
            if found.value is None:
                return found
            self._handles[index] = found.value
        return Fact(self._handles[index])

    def _ask(self, question: Callable[[], T]) -> Fact[T]:
        """The answer, or the reason why there is none."""
        nvml = self._nvml
        try:
            return Fact(question())
        except nvml.NVMLError as error:
            return Fact(reason=_reason(error))
        except nvml.NVMLLibraryMismatchError:  # not an NVMLError
            return Fact(reason=MISMATCH)
        except (UnicodeDecodeError, AttributeError):  # garbage in a name; a function this pynvml does not have
            return Fact(reason="the driver's answer could not be read")


def _reason(error: Exception) -> str:
    name = type(error).__name__.removeprefix("NVMLError_")
    if name in _REASONS:
        return _REASONS[name]
    with contextlib.suppress(Exception):  # __str__ asks the driver for codes it does not know
        return f"NVML: {error}"
    return "NVML failed"


def _cuda(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
