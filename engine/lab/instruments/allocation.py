"""Peak memory that torch allocates for some work: exact on the CPU, from the allocator's counters on CUDA."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.clocks import wait_for


def peak_is_seen(context: ExperimentContext, device: torch.device) -> bool:
    """Whether :func:`peak_bytes` works on `device`; if not, the context's `cannot_see` gets a sentence."""
    if device.type in ("cpu", "cuda"):
        return True
    context.cannot_see.append(f"peak memory on {device}: torch reports it for the CPU and CUDA devices only")
    return False


def peak_bytes(device: torch.device, work: Callable[[], object]) -> int:
    """Peak bytes of tensors during `work`, above what was allocated before. The result of `work` lives to the end.

    On the CPU torch's profiler sees every allocation, without the noise in the resident size of a process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        wait_for(device)
        peak = torch.cuda.max_memory_allocated(device) - before
        del result
        return peak
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = work()
    del result
    assert profiled.profiler is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
