"""How much memory a run really held, to be laid beside what its plan said.

On a CUDA device torch counts what it has allocated. On the CPU the kernel keeps the highest resident size of the
process; a run's part is what that is above the size of the engine that waited, so it holds the data, what the
allocator keeps and what torch loads with the first step as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_SELF = Path("/proc/self")


def resident_bytes() -> int:
    """Resident size of this process now."""
    try:
        return int((_SELF / "statm").read_text().split()[1]) * _page_size()
    except OSError:
        import psutil

        return psutil.Process().memory_info().rss


class Footprint:
    """Measures from its making on; `base_bytes` is the resident size of the engine before it had data."""

    def __init__(self, device: torch.device, base_bytes: int) -> None:
        self._device, self._base_bytes = device, base_bytes
        self._before_bytes = 0 if forget() else highest()

    def bytes(self) -> int | None:
        """The most that was held so far; None where it cannot be told. Does not wait for the device."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if self._device.type != "cpu":
            return None
        most = highest()
        # Where the kernel cannot be made to forget, a peak before the run hides all lower ones in it.
        return max(0, most - self._base_bytes) if most > self._before_bytes else None


def forget() -> bool:
    """Let the kernel start anew with the highest resident size (proc(5), clear_refs); False where it cannot be told."""
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def highest() -> int:
    """The highest resident size so far, in bytes."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _page_size() -> int:
    import resource

    return resource.getpagesize()
