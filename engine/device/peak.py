"""The peak memory of a piece of work: of the process on the CPU, of torch's allocator on CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Iterator

import psutil
import torch

from epochtop.engine.device.footprint import peak_resident_bytes, reset_peak

POLL_S = 0.002
"""Seconds between two readings of the memory, where the kernel does not record its peak."""


class Peak:
    """Result of :func:`measured_peak`, set when it ends."""

    bytes = 0
    """Peak memory beyond what was in use before."""


def release(device: torch.device) -> None:
    """Return unused memory to the system, so that the next measurement starts low."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextlib.contextmanager
def measured_peak(device: torch.device) -> Iterator[Peak]:
    """Measure the peak memory of the `with` block."""
    peak = Peak()
    release(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_reserved(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_reserved(device) - before
    elif reset_peak():
        before = peak_resident_bytes()
        yield peak
        peak.bytes = peak_resident_bytes() - before
    else:
        with _polled(peak):
            yield peak


@contextlib.contextmanager
def _polled(peak: Peak) -> Iterator[None]:
    """Read the memory from a thread again and again; misses peaks shorter than POLL_S."""
    process, stop = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def poll() -> None:
        nonlocal highest
        while not stop.wait(POLL_S):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=poll, name="peak", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        peak.bytes = max(highest, process.memory_info().rss) - before
