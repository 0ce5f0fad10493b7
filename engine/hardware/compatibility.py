"""Checks whether torch, CUDA, cuDNN and the driver fit together, and gives the command that fixes a mismatch.

Compares the report of a standby engine (:class:`epochtop.engine.protocol.requests.Ready`) with the driver's. Never
imports torch.
"""

from __future__ import annotations

from typing import NamedTuple

from epochtop.engine.hardware.facts import Gpu, Machine
from epochtop.engine.protocol.requests import Ready

DRIVER_OF_CUDA = {11: "450", 12: "525", 13: "580"}
"""Oldest driver for each major CUDA version. Source: NVIDIA, CUDA Compatibility, "minor version compatibility"."""
CUDA_12 = "'torch==2.9.*'"
"""The last torch on the Python package index that is built for CUDA 12 (12.8)."""
OLD_CARDS = "'torch==2.7.*'"
"""The last torch there that has kernels for Maxwell, Pascal and Volta (CUDA 12.6)."""


class Finding(NamedTuple):
    """A mismatch."""

    text: str
    """What does not fit together."""
    command: str = ""
    """Command that fixes it; empty if no single command does."""


def software_fit(ready: Ready, machine: Machine) -> list[Finding]:
    """Every mismatch, causes before their effects; empty if everything fits."""
    if machine.no_gpu_error in ("LibRmVersionMismatch", "LibraryMismatch"):
        return [Finding("the NVIDIA driver was updated, but the old one is still loaded", "sudo reboot")]
    if not machine.gpus:
        return _other_vendors(ready, machine)
    if ready.cuda_version is None:
        return [_no_cuda(ready, machine)]
    if too_old := _driver_too_old(ready, machine):
        return [too_old]
    if not any(device.device.startswith("cuda") for device in ready.devices):
        return [_not_available(ready, machine)]
    return [*_no_kernels(ready, machine), *_no_cudnn(ready)]


def _pip(ready: Ready, what: str) -> str:
    return f"{ready.python or 'python'} -m pip install --force-reinstall {what}"


def _major(version: str | None) -> int | None:
    head = (version or "").partition(".")[0]
    return int(head) if head.isdigit() else None


def _no_cuda(ready: Ready, machine: Machine) -> Finding:
    kind = "for ROCm" if ready.hip_version else "without CUDA"
    which = CUDA_12 if _major(machine.cuda_version.value) == 12 else "torch"
    text = f"torch {ready.torch_version} is built {kind} and cannot use the GPU{'s' * (len(machine.gpus) > 1)}"
    return Finding(text, _pip(ready, which))


def _driver_too_old(ready: Ready, machine: Machine) -> Finding | None:
    required, supported = _major(ready.cuda_version), _major(machine.cuda_version.value)
    if required is None or supported is None or required <= supported:
        return None
    oldest_driver = DRIVER_OF_CUDA.get(required)
    text = (
        f"driver {machine.driver_version.value or 'of unknown version'} supports CUDA up to {machine.cuda_version.value}, but "
        f"torch {ready.torch_version} is built for CUDA {ready.cuda_version}: "
        f"update the driver{f' to {oldest_driver} or newer' if oldest_driver else ''}"
    )
    if supported == 12:
        return Finding(f"{text}, or install a torch for CUDA 12", _pip(ready, CUDA_12))
    return Finding(text)


def _not_available(ready: Ready, machine: Machine) -> Finding:
    if machine.visible_devices is not None and all(gpu.cuda_index.value is None for gpu in machine.gpus):
        return Finding(
            f"CUDA_VISIBLE_DEVICES={machine.visible_devices or chr(39) * 2} hides every GPU from torch",
            "unset CUDA_VISIBLE_DEVICES",
        )
    return Finding(f"the driver finds a GPU, but torch does not{f': {ready.cuda_reason}' if ready.cuda_reason else ''}")


def _no_cudnn(ready: Ready) -> list[Finding]:
    if ready.cudnn_version is not None:
        return []
    return [Finding("torch finds no cuDNN: convolutions are slow or fail", _pip(ready, "torch"))]


# --- kernels ----------------------------------------------------------------------------------------------


def _no_kernels(ready: Ready, machine: Machine) -> list[Finding]:
    findings = []
    for gpu in machine.gpus:
        capability = gpu.compute_capability.value
        if capability is not None and ready.architectures and not has_kernels(capability, ready.architectures):
            findings.append(_no_kernels_for(gpu, capability, ready))
    return findings


def _no_kernels_for(gpu: Gpu, capability: str, ready: Ready) -> Finding:
    text = f"torch {ready.torch_version} has no kernels for {gpu.name.value or f'GPU {gpu.index}'} (compute capability {capability})"
    if _number(capability) < 75:
        return Finding(text, _pip(ready, OLD_CARDS))
    return Finding(text, f"{ready.python or 'python'} -m pip install --upgrade torch")


def has_kernels(capability: str, architectures: tuple[str, ...]) -> bool:
    """Whether a torch built for `architectures` (`sm_80`, `compute_90`) runs on a GPU of `capability` (`8.6`).

    Binaries run on later minor versions of their major version; `compute_…` (PTX) is compiled for any later GPU.
    """
    card = _number(capability)
    for name in architectures:
        kind, _, digits = name.rstrip("af").partition("_")
        if digits.isdigit() and int(digits) <= card and (kind == "compute" or int(digits) // 10 == card // 10):
            return True
    return False


def _number(capability: str) -> int:
    major, _, minor = capability.partition(".")
    return 10 * int(major) + int(minor or 0)


# --- other vendors ----------------------------------------------------------------------------------------


def _other_vendors(ready: Ready, machine: Machine) -> list[Finding]:
    if any(device.device != "cpu" for device in ready.devices):
        return []
    if any(device.vendor == "AMD" for device in machine.other_gpus) and ready.hip_version is None:
        return [Finding("the PCI bus has an AMD GPU; torch needs its ROCm build to use it (pytorch.org, Get Started)")]
    return []
