"""How much memory something takes at its peak: of the process on the CPU, of torch's allocator on CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LOOK_S = 0.002
"""Between two looks at the memory, where the kernel does not remember its peak."""


class Peak:
    """Bytes taken at the peak, beyond what was in use before; known when :func:`measured` has ended."""

    bytes = 0


def release(device: torch.device) -> None:
    """Give back what nobody uses any more, so that the next measurement begins low."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextlib.contextmanager
def measured(device: torch.device) -> Iterator[Peak]:
    """The peak while it is entered."""
    peak = Peak()
    release(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_reserved(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_reserved(device) - before
    elif _reset():
        before = _from_kernel()
        yield peak
        peak.bytes = _from_kernel() - before
    else:
        with _watched(peak):
            yield peak


def _reset() -> bool:
    """Whether the kernel could be told to begin anew with the highest memory (proc(5), clear_refs)."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return STATUS.exists()


def _from_kernel() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return int(found[1]) * 1024 if found else 0


@contextlib.contextmanager
def _watched(peak: Peak) -> Iterator[None]:
    """A thread that looks again and again; what lasts for less than LOOK_S is not seen."""
    process, stop = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def look() -> None:
        nonlocal highest
        while not stop.wait(LOOK_S):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=look, name="peak", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        peak.bytes = max(highest, process.memory_info().rss) - before
