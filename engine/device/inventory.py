"""The devices and versions that torch finds, for processes that must not import torch. Creates no CUDA context."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch

from epochtop.engine.hardware import available_memory_bytes
from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.watchdog import GpuWatch
from epochtop.engine.protocol.requests import DeviceFact, Ready

T = TypeVar("T")
PATIENCE_S = 1.0
"""Seconds that a plan waits for the driver to report free memory."""


def torch_inventory() -> Ready:
    """Versions and devices, as the first reply of a standby engine."""
    available, reason = _cuda_available()
    devices = [DeviceFact(device="cpu", name=cpu_name())]
    errors: list[str] = [reason] if reason else []
    if available:
        devices += _fact(_cuda_facts, errors) or ()
    if torch.backends.mps.is_available():
        devices.append(DeviceFact(device="mps", name="Apple GPU", memory_bytes=torch.mps.recommended_max_memory()))
    devices += _fact(lambda: _other_accelerators(len(devices) > 1), errors) or ()
    return Ready(
        torch_version=str(torch.__version__),
        cuda_version=torch.version.cuda,
        cudnn_version=_fact(_cudnn_version, errors),
        devices=tuple(devices),
        pid=os.getpid(),
        python=sys.executable,
        python_version=platform.python_version(),
        hip_version=torch.version.hip,
        architectures=(_fact(_architectures, errors) or ()) if available else (),
        accelerator=_fact(accelerator, errors) or "",
        cuda_reason="; ".join(dict.fromkeys(errors)),
    )


def _fact(read: Callable[[], T], errors: list[str]) -> T | None:
    """What `read` returns; None, with its message in `errors`, if the driver or a library of the GPU fails.

    A GPU that torch has dropped, a foreign cuDNN or a broken driver must not keep the CPU from training.
    """
    try:
        return read()
    except Exception as error:
        errors.append(" ".join(str(error).split()) or type(error).__name__)
        return None


def _cudnn_version() -> int | None:
    version: Any = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return None if version is None else int(version)


def _architectures() -> tuple[str, ...]:
    return tuple(torch.cuda.get_arch_list())


def _cuda_facts() -> list[DeviceFact]:
    return [_cuda_fact(index) for index in range(torch.cuda.device_count())]


def cpu_name() -> str:
    """Model name of the CPU, or its architecture if the system does not report a model."""
    return identify_cpu(Roots()).model.value or platform.machine()


def _cuda_available() -> tuple[bool, str]:
    """Whether torch can use CUDA (or ROCm), and torch's message if it was built for it but cannot."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available or torch.version.cuda is None:
        return available, ""
    return False, " ".join(str(caught[-1].message).split()) if caught else "it finds no device"


def _cuda_fact(index: int) -> DeviceFact:
    facts = torch.cuda.get_device_properties(index)
    return DeviceFact(
        device=f"cuda:{index}",
        name=facts.name,
        memory_bytes=facts.total_memory,
        uuid=_uuid(facts),
        multiprocessors=facts.multi_processor_count,
    )


def _uuid(facts: Any) -> str:
    """UUID as NVML writes it; empty for ROCm, whose UUIDs NVML does not know."""
    return f"GPU-{facts.uuid}" if torch.version.hip is None and hasattr(facts, "uuid") else ""


def accelerator() -> str:
    """torch's name for the type of accelerator: `cuda` (also for ROCm), `mps`, `xpu`; empty without one."""
    if not torch.accelerator.is_available():
        return ""
    device = torch.accelerator.current_accelerator()
    return device.type if device is not None else ""


def _other_accelerators(is_listed: bool) -> list[DeviceFact]:
    """Accelerators of other vendors, of which torch reports only the number."""
    kind = "" if is_listed else accelerator()
    count = torch.accelerator.device_count() if kind else 0
    return [DeviceFact(device=f"{kind}:{index}", name=f"{kind} accelerator") for index in range(count)]


# --- one device -------------------------------------------------------------------------------------------


def uuid(device: torch.device) -> str | None:
    """NVML's UUID of a CUDA device; None for any other device."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return _uuid(torch.cuda.get_device_properties(device)) or None


def available_bytes(device: torch.device) -> int | None:
    """Free memory of `device` for a run, in bytes; None if it is unknown before the run starts."""
    if device.type == "cpu":
        return available_memory_bytes()
    nvml_uuid = uuid(device)
    return _free_by_nvml(nvml_uuid) if nvml_uuid else None


def _free_by_nvml(uuid: str) -> int | None:
    samples, age_s = _watch(uuid).sample(PATIENCE_S)
    if age_s > 0 or not samples:
        return None
    total, used = samples[0].memory_total_bytes.value, samples[0].memory_used_bytes.value
    if total is None or used is None:
        return None
    return total - used - (samples[0].memory_reserved_bytes.value or 0)


@cache
def _watch(uuid: str) -> GpuWatch:
    return GpuWatch(Processes(Roots(), ""), uuid=uuid)
