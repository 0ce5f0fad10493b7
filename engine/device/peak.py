"""How much memory something takes at its peak: of the process on the CPU, of torch's allocator on CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Iterator

import psutil
import torch

from epochtop.engine.device.footprint import forget, highest

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
    elif forget():
        before = highest()
        yield peak
        peak.bytes = highest() - before
    else:
        with _watched(peak):
            yield peak


@contextlib.contextmanager
def _watched(peak: Peak) -> Iterator[None]:
    """A thread that looks again and again; what lasts for less than LOOK_S is not seen."""
    process, stop = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def look() -> None:
        nonlocal most
        while not stop.wait(LOOK_S):
            most = max(most, process.memory_info().rss)

    thread = threading.Thread(target=look, name="peak", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        peak.bytes = max(most, process.memory_info().rss) - before
