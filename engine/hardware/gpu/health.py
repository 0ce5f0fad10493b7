"""The health of GPUs: states in which a GPU cannot work or soon will not, what they mean and what to do.

Each state is its own fact; :func:`problems` turns the facts and the driver's error codes into advice. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import byref
from typing import Any, NamedTuple

from epochtop.engine.hardware.facts import Fact, GpuProblem
from epochtop.engine.hardware.gpu.nvml import NOT_SUPPORTED, Driver, mapped

_FABRIC = {1: "not started", 2: "in progress", 3: "ready"}
"""NVML_GPU_FABRIC_STATE_*; 0 is "not supported"."""
_RECOVERY_FIELD = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION."""
_RECOVERY = {
    0: "none", 1: "reset the GPU", 2: "reboot the machine", 3: "drain peer-to-peer traffic", 4: "drain and reset",
    5: "recover the IMEX domain", 6: "reset the bus", 7: "reboot the machine",
}  # fmt: skip
"""NVML_GPU_RECOVERY_ACTION_*."""
_STOPPED = (1, 2, 6, 7)
"""Recovery actions until which the GPU runs no job."""

VITAL = ("handle", "nvmlDeviceGetName", "nvmlDeviceGetUUID", "memory", "temperature", "nvmlDeviceGetPowerUsage")
"""Queries that a working GPU answers or calls unsupported; two failures show as ERR! in nvidia-smi."""
_FAILURES = {"Unknown", "OperatingSystem", "Timeout"}

RESET = "stop its programs, then run: sudo nvidia-smi --gpu-reset -i {index}; reboot if that fails"
REBOOT = "reboot the machine; if it happens again, check power, seating and cooling of the card"
CABLES = "attach the power cables of the card and reboot"
_ERRORS = {
    "GpuIsLost": ("lost: it fell off the bus or stopped answering", REBOOT),
    "ResetRequired": ("needs a reset", RESET),
    "InsufficientPower": ("its power cables are not attached", CABLES),
    "IrqIssue": ("the kernel reports an interrupt problem with it", REBOOT),
}
"""Error codes of NVML after which a GPU runs no job: nvml.h, nvmlReturn_t."""

NVLINK = "check the NVLink cables and switches: nvidia-smi nvlink --status; see the kernel's log"
PROGRAM = "the program failed, not the GPU; if it happens with other programs too, see: sudo dmesg | grep -i xid"
LOG = "see the kernel's log: sudo dmesg | grep -i xid"
_XIDS = {
    PROGRAM: {
        8: "the GPU stopped working on a program", 11: "a program sent invalid commands", 13: "a program caused an exception",
        25: "a program sent invalid commands", 31: "a program accessed invalid memory", 32: "a program sent invalid commands",
        43: "a program was stopped after an error", 45: "a program was stopped after another error",
        69: "a program sent invalid commands", 80: "a program sent corrupted data", 94: "a contained memory error",
    },
    LOG: {
        44: "an error while programs took turns", 61: "its microcontroller reported a breakpoint",
        63: "a memory row is to be remapped", 66: "an invalid access by the driver", 67: "an invalid access by the driver",
        78: "a vGPU could not start", 92: "many memory errors that ECC corrected", 121: "an error between CPU and GPU (C2C)",
        154: "the driver changed its recovery action", 157: "a defective part could not be retired",
    },
    NVLINK: {
        74: "an NVLink error", 137: "an NVLink error", 144: "an NVLink error", 145: "an NVLink error",
        146: "an NVLink error", 147: "an NVLink error", 148: "an NVLink error", 149: "an NVLink error", 150: "an NVLink error",
    },
    RESET: {
        46: "the GPU stopped working", 48: "a memory error that ECC could not correct", 62: "its microcontroller halted",
        64: "a memory row could not be remapped", 95: "an uncontained memory error", 109: "programs could not take turns",
        110: "a security fault", 119: "its firmware (GSP) did not answer", 120: "its firmware (GSP) failed",
        136: "an NVLink could not be trained", 140: "a memory error that ECC could not correct",
        143: "the driver could not initialize it", 155: "an NVLink error", 156: "a defective part is retired at the next reset",
        158: "it did not answer in time",
    },
    REBOOT: {79: "it fell off the bus"},
    CABLES: {54: "a power cable is not attached"},
}  # fmt: skip
"""Advice, and the Xid numbers that ask for it. Source: NVIDIA, XID Errors, "Xid Catalog", immediate action (2025-10);
61 is in use before Ampere only."""
_STOPPING = (RESET, REBOOT, CABLES)
"""Advice without which the GPU runs no job."""


class Health(NamedTuple):
    """The states of one GPU."""

    fabric: Fact[str]
    recovery_action: Fact[str]
    remapped_rows: Fact[int]
    remapping_pending: Fact[bool]
    remapping_failed: Fact[bool]
    xid_errors: Fact[tuple[int, ...]]


class HealthReader:
    """Reads the states of a driver's GPUs; Xid errors count from the first reading."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._events: dict[int, Any] = {}
        self._xids: dict[int, tuple[int, ...]] = {}

    def read(self, index: int) -> Health:
        """The states of one GPU."""
        driver = self._driver
        rows = driver.call(index, "nvmlDeviceGetRemappedRows")
        return Health(
            fabric=self._fabric(index),
            recovery_action=mapped(self._recovery(index), lambda action: _RECOVERY.get(action, f"action {action}")),
            remapped_rows=mapped(rows, lambda values: int(values[0] + values[1])),
            remapping_pending=mapped(rows, lambda values: bool(values[2])),
            remapping_failed=mapped(rows, lambda values: bool(values[3])),
            xid_errors=self._xid_errors(index),
        )

    def _fabric(self, index: int) -> Fact[str]:
        def state(gpu: Any) -> tuple[int, int]:
            info = self._driver.nvml.c_nvmlGpuFabricInfo_t()
            self._driver.nvml.nvmlDeviceGetGpuFabricInfo(gpu, byref(info))
            return info.state, info.status

        answer = self._driver.ask_gpu(index, "fabric", state)
        if answer.value is None:
            return Fact(reason=answer.reason)
        number, status = answer.value
        if number == 0:
            return Fact(reason=NOT_SUPPORTED)
        return Fact(f"failed (status {status})" if number == 3 and status else _FABRIC.get(number, f"state {number}"))

    def _recovery(self, index: int) -> Fact[int]:
        def action(gpu: Any) -> int:
            nvml = self._driver.nvml
            (field,) = nvml.nvmlDeviceGetFieldValues(gpu, [_RECOVERY_FIELD])
            if field.nvmlReturn:
                raise nvml.NVMLError(field.nvmlReturn)
            return int(field.value.uiVal)

        return self._driver.ask_gpu(index, "recovery", action)

    def _xid_errors(self, index: int) -> Fact[tuple[int, ...]]:
        nvml = self._driver.nvml

        def new(gpu: Any) -> tuple[int, ...]:
            if index not in self._events:
                events = nvml.nvmlEventSetCreate()
                nvml.nvmlDeviceRegisterEvents(gpu, nvml.nvmlEventTypeXidCriticalError, events)
                self._events[index] = events
            numbers: list[int] = []
            while len(numbers) < 16:
                try:
                    numbers.append(int(nvml.nvmlEventSetWait_v2(self._events[index], 0).eventData))
                except nvml.NVMLError_Timeout:
                    break
            return tuple(numbers)

        answer = self._driver.ask_gpu(index, "xid", new)
        if answer.value is None:
            return Fact(reason=answer.reason)
        self._xids[index] = tuple(dict.fromkeys((*self._xids.get(index, ()), *answer.value)))
        return Fact(self._xids[index])


def identity_problems(index: int, errors: Mapping[str, str]) -> tuple[GpuProblem, ...]:
    """What the driver's error codes mean, by query: a GPU that is lost, needs a reset or is in the state ERR!."""
    for error in errors.values():
        if error in _ERRORS:
            text, advice = _ERRORS[error]
            return (GpuProblem(error, text, advice.format(index=index), True),)
    failed = [query for query in VITAL if errors.get(query) in _FAILURES]
    if "handle" in failed or len(failed) > 1:
        advice = f"see why with: sudo dmesg | grep -i xid; {RESET.format(index=index)}"
        return (GpuProblem("Error", "in an error state (ERR! in nvidia-smi)", advice, True),)
    return ()


def problems(index: int, errors: Mapping[str, str], health: Health) -> tuple[GpuProblem, ...]:
    """Every problem of a GPU, those that stop jobs first."""
    all_problems = [*identity_problems(index, errors), *_state_problems(index, health), *_xid_problems(index, health)]
    return tuple(sorted(all_problems, key=lambda problem: not problem.is_fatal))


def _state_problems(index: int, health: Health) -> list[GpuProblem]:
    listed = []
    if health.fabric.value not in (None, "ready"):
        text = f"NVLink fabric: {health.fabric.value}; CUDA fails with error 802 (system not yet initialized)"
        advice = "start the fabric manager of the driver's version: sudo systemctl start nvidia-fabricmanager"
        listed.append(GpuProblem("Fabric", text, advice, True))
    action = health.recovery_action.value
    if action not in (None, "none"):
        is_fatal = action in {_RECOVERY[number] for number in _STOPPED}
        listed.append(GpuProblem("Recovery", f"the driver asks to {action}", RESET.format(index=index), is_fatal))
    if health.remapping_failed.value:
        text = "memory rows could not be remapped: its memory is defective"
        listed.append(GpuProblem("RemappingFailed", text, "replace the card (NVIDIA's RMA process)", False))
    if health.remapping_pending.value:
        text = "memory errors were found; rows are remapped at the next reset"
        listed.append(GpuProblem("RemappingPending", text, RESET.format(index=index), False))
    return listed


def _xid_problems(index: int, health: Health) -> list[GpuProblem]:
    listed = []
    for number in health.xid_errors.value or ():
        advice, meaning = next(
            ((advice, meanings[number]) for advice, meanings in _XIDS.items() if number in meanings),
            (LOG, "see NVIDIA's catalog of Xid errors"),
        )
        text = f"Xid {number}: {meaning}"
        listed.append(GpuProblem(f"Xid {number}", text, advice.format(index=index), advice in _STOPPING))
    return listed
