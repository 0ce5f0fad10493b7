"""The device that a run trains on, chosen by name, and its free memory."""

from __future__ import annotations

import torch

from epochtop.engine.device import inventory
from epochtop.engine.hardware.compatibility import has_kernels
from epochtop.engine.protocol.quantities import plural
from epochtop.engine.protocol.spec import Invalid


def choose_device(name: str) -> torch.device:
    """The device called `name` in a spec. Raises Invalid if this machine does not have it."""
    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda:0" if cuda and not why_not_cuda() else "mps" if mps else "cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if cuda else 0
        index = int(name.partition(":")[2] or 0)
        if index >= count:
            raise Invalid("device", f"{name} is not on this machine: {_why_no_cuda(count)}; use cpu or auto")
        if reason := why_not_cuda(index):
            raise Invalid("device", f"{reason}; use cpu")
        return torch.device("cuda", index)
    if name == "mps" and not mps:
        raise Invalid("device", "mps is not on this machine; use cpu or auto")
    return torch.device(name)


def why_not_cuda(index: int = 0) -> str:
    """Why this torch cannot train on a GPU that it finds, in one sentence; empty if nothing speaks against it."""
    try:
        properties = torch.cuda.get_device_properties(index)
        architectures = tuple(torch.cuda.get_arch_list())
    except Exception as error:  # the driver or the GPU fails
        return f"cuda:{index} fails: {' '.join(str(error).split())[:200]}"
    if torch.version.hip is not None:  # named after processors (gfx90a), which torch checks itself
        return ""
    capability = f"{properties.major}.{properties.minor}"
    if architectures and not has_kernels(capability, architectures):
        version = f"torch {torch.__version__}"
        return f"{version} has no kernels for {properties.name} (compute capability {capability})"
    return ""


def why_not_accelerated(device: torch.device) -> str:
    """Why `auto` is `device` although torch finds another accelerator; empty if it finds none."""
    if device.type == "cuda":
        return ""
    if torch.cuda.is_available():
        return why_not_cuda()
    kind = inventory.accelerator()
    return "" if kind in ("", "cuda", "mps") else f"epochtop does not train on {kind}"


def _why_no_cuda(count: int) -> str:
    if count:
        last = f" to cuda:{count - 1}" if count > 1 else ""
        return f"torch finds {plural(count, 'CUDA device')}, cuda:0{last}"
    if torch.version.hip is not None:
        return "torch finds no AMD GPU"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch finds no CUDA device"


def free_bytes(device: torch.device, exact: bool = False) -> int | None:
    """Free memory of `device` in bytes; None if unknown.

    On CUDA, an `exact` answer creates a CUDA context, which is allowed only in a run; otherwise the driver is asked.
    """
    if device.type == "cuda" and exact:
        return int(torch.cuda.mem_get_info(device)[0])
    return inventory.available_bytes(device)
