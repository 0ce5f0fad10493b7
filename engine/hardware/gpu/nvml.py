"""The connection to NVIDIA's driver: every query on its own, every refusal becomes a reason.

A machine without a GPU or a driver is normal and yields a reason. A GPU that fails, a field that a GPU lacks, a library
of another version: each makes one value unknown and leaves the others alone. Only :class:`Driver` imports pynvml.
Never imports torch and never creates a CUDA context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from epochtop.engine.hardware.facts import Fact

T = TypeVar("T")

NOT_SUPPORTED = "not supported by this card"
UNIFIED = "shares the system's memory"
MIG = "MIG is on"
MISMATCH = "driver and library differ in version: reboot or reload the driver"
NO_SIZE = "the driver reports no size"
NO_DRIVER = "no NVIDIA driver found"
NOT_INSTALLED = "the package nvidia-ml-py is not installed"
TOO_OLD = "this driver is too old to report it"

_REASONS = {
    "LibraryNotFound": NO_DRIVER,
    "DriverNotLoaded": "NVIDIA driver is not loaded",
    "LibRmVersionMismatch": MISMATCH,
    "NotSupported": NOT_SUPPORTED,
    "NoPermission": "no permission",
    "FunctionNotFound": TOO_OLD,
    "ArgumentVersionMismatch": TOO_OLD,
    "GpuIsLost": "GPU is lost: it needs a reset or a reboot",
    "ResetRequired": "GPU needs a reset",
    "Timeout": "GPU did not answer in time",
}
_PERMANENT = {"NotSupported", "FunctionNotFound", "ArgumentVersionMismatch"}
"""Errors that do not change; the query is not repeated."""
_ABOUT_THE_GPU = {"GpuIsLost", "ResetRequired", "Timeout"}
"""Errors whose reason is about the GPU as a whole."""


class Driver:
    """An open connection, for one thread at a time. Never raises for a query that the driver refuses."""

    def __init__(self) -> None:
        self._permanent: dict[tuple[int, str], Fact[Any]] = {}
        self._errors: dict[int, dict[str, str]] = {}
        self._error = ""
        self._handles: dict[int, Any] = {}
        self._is_open = False
        self.nvml: Any = None
        self.count = 0
        self.sharing: set[int] = set()
        """GPUs that are known to use the system's memory."""
        self.reason = self._open()
        """Why there are no GPUs; empty if there are some."""
        self.error = self._error if self.reason else ""
        """NVML's name for that error; empty without one."""

    def _open(self) -> str:
        try:
            import pynvml
        except ImportError:
            return NOT_INSTALLED
        self.nvml = pynvml
        opened = self.ask(pynvml.nvmlInit)
        if opened.reason:
            return opened.reason
        self._is_open = True
        count = self.ask(pynvml.nvmlDeviceGetCount)
        self.count = count.value or 0
        return "" if self.count else count.reason or "driver found, but no NVIDIA GPU"

    def close(self) -> None:
        """Close the connection."""
        if self._is_open:
            self._is_open = False
            self.ask(self.nvml.nvmlShutdown)

    def version(self) -> Fact[str]:
        """Version of the kernel driver, such as `550.54.14`."""
        return self.ask(self.nvml.nvmlSystemGetDriverVersion) if self._is_open else Fact(reason=self.reason)

    def cuda_version(self) -> Fact[str]:
        """Newest CUDA version that the driver supports, such as `12.4`."""
        if not self._is_open:
            return Fact(reason=self.reason)
        return self.ask(lambda: _cuda(self.nvml.nvmlSystemGetCudaDriverVersion()))

    def mig(self, index: int) -> Fact[bool]:
        """Whether a GPU is split into MIG instances."""
        mode = self.ask_gpu(index, "mig", lambda gpu: self.nvml.nvmlDeviceGetMigMode(gpu)[0])
        if mode.reason in (NOT_SUPPORTED, TOO_OLD):  # a GPU that cannot be split is not split
            return Fact(False)
        return mapped(mode, lambda number: bool(number == self.nvml.NVML_DEVICE_MIG_ENABLE))

    def why_no_use(self, index: int) -> str:
        """Why the use of a GPU is unknown: MIG is on, or may be on. Empty if it is known."""
        mig = self.mig(index)
        if mig.value is None:
            is_known = self.errors(index).get("mig", "") in _ABOUT_THE_GPU or "handle" in self.errors(index)
            return mig.reason if is_known else f"whether MIG is on is unknown: {mig.reason}"
        return MIG if mig.value else ""

    def memory(self, index: int) -> tuple[Fact[int], Fact[int], Fact[int]]:
        """Used, reserved and total memory in bytes; used memory does not include the driver's reserve."""
        both = self.ask_gpu(index, "memory", self._read_memory)
        if both.value and not both.value[2]:
            both = Fact(reason=NO_SIZE)
        if both.value is None and index in self.sharing and not self.errors(index).get("memory"):
            both = Fact(reason=UNIFIED)
        if both.value is None:
            unknown = Fact[int](reason=both.reason)
            return unknown, unknown, unknown
        used, reserved, total = both.value
        return Fact(used), Fact(reserved) if reserved is not None else Fact(reason=TOO_OLD), Fact(total)

    def _read_memory(self, gpu: Any) -> tuple[int, int | None, int]:
        nvml = self.nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
        except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_ArgumentVersionMismatch):
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
            return memory.used, None, memory.total
        return memory.used, memory.reserved, memory.total

    # --- queries ---

    def ask_gpu(self, index: int, field: str, question: Callable[[Any], T]) -> Fact[T]:
        """The answer of one GPU to `question`, called with its handle; a permanent refusal is cached under `field`."""
        refusal = self._permanent.get((index, field))
        if refusal is not None:
            return refusal
        handle = self._handle(index)
        if handle.value is None:
            return Fact(reason=handle.reason)
        answer = self.ask(lambda: question(handle.value))
        if self._error in _PERMANENT:
            self._permanent[index, field] = answer
        self._note_error(index, field)
        return answer

    def errors(self, index: int) -> dict[str, str]:
        """The error of each query that a GPU failed the last time, but for those that it never answers."""
        return self._errors.setdefault(index, {})

    def _note_error(self, index: int, field: str) -> None:
        if self._error and self._error not in _PERMANENT:
            self.errors(index)[field] = self._error
        else:
            self.errors(index).pop(field, None)

    def call(self, index: int, function: str, *arguments: Any) -> Fact[Any]:
        """The answer of one GPU to the pynvml function of this name; `arguments` follow the handle."""
        field = " ".join([function, *map(str, arguments)])
        return self.ask_gpu(index, field, lambda gpu: getattr(self.nvml, function)(gpu, *arguments))

    def _handle(self, index: int) -> Fact[Any]:
        if index not in self._handles:
            answer = self.ask(lambda: self.nvml.nvmlDeviceGetHandleByIndex(index))
            if self._error:  # without a handle, even a permanent error is one of the GPU
                self.errors(index)["handle"] = self._error
            else:
                self.errors(index).pop("handle", None)
            if answer.value is None:
                return answer
            self._handles[index] = answer.value
        return Fact(self._handles[index])

    def ask(self, question: Callable[[], T]) -> Fact[T]:
        """The answer to a query, or the reason why there is none."""
        nvml, self._error = self.nvml, ""
        try:
            return Fact(question())
        except nvml.NVMLError as error:
            self._error = type(error).__name__.removeprefix("NVMLError_")
            return Fact(reason=_reason(error))
        except nvml.NVMLLibraryMismatchError:  # not an NVMLError
            self._error = "LibraryMismatch"
            return Fact(reason=MISMATCH)
        except (UnicodeDecodeError, AttributeError):  # garbage in a name, or a function that this pynvml lacks
            self._error = "Unreadable"
            return Fact(reason="the driver's answer could not be read")


def _reason(error: Exception) -> str:
    name = type(error).__name__.removeprefix("NVMLError_")
    if name in _REASONS:
        return _REASONS[name]
    with contextlib.suppress(Exception):  # __str__ asks the driver about codes it does not know
        return f"NVML: {error}"
    return "NVML failed"


def _cuda(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def mapped(fact: Fact[Any], change: Callable[[Any], T]) -> Fact[T]:
    """Apply `change` to a known value; an unknown value keeps its reason."""
    return Fact(reason=fact.reason) if fact.value is None else Fact(change(fact.value))
