"""The peak memory of a run, to compare with its plan.

On CUDA, torch counts its allocations. On the CPU, the kernel records the highest resident size of the process; the run's
part is the growth over the size of the waiting engine, which includes the data, the allocator's reserve and what torch
loads with the first step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from epochtop.engine.hardware.memory_maps import resident_file_bytes

_SELF = Path("/proc/self")


def resident_bytes() -> int:
    """Resident size of this process, in bytes."""
    try:
        return int((_SELF / "statm").read_text().split()[1]) * _page_size()
    except OSError:
        import psutil

        return psutil.Process().memory_info().rss


class Footprint:
    """The peak memory since this object was created, without memory-mapped data.

    `base_bytes` is the engine's resident size before it had data.
    """

    def __init__(self, device: torch.device, base_bytes: int) -> None:
        self._device, self._base_bytes = device, base_bytes
        self._earlier_peak_bytes = 0 if reset_peak() else peak_resident_bytes()

    def bytes(self) -> int | None:
        """Peak memory so far, in bytes; None if unknown. Does not wait for the device."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if self._device.type != "cpu":
            return None
        peak = peak_resident_bytes()
        # Mapped pages of data files are the system's to drop, so they are not memory of the run.
        base = self._base_bytes + resident_file_bytes()
        # Where the peak cannot be reset, an earlier one hides all lower peaks of the run.
        return max(0, peak - base) if peak > self._earlier_peak_bytes else None


def reset_peak() -> bool:
    """Reset the kernel's record of the highest resident size (proc(5), clear_refs). False if that is not possible."""
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_resident_bytes() -> int:
    """The highest resident size of this process so far, in bytes."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _page_size() -> int:
    import resource

    return resource.getpagesize()
