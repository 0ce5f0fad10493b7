"""Memory that torch takes for some work, at its peak: exact on the CPU, from its allocator on CUDA."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.clocks import wait_for


def peak_is_seen(bench: ExperimentContext, device: torch.device) -> bool:
    """Whether :func:`peak_bytes` sees the memory of `device`; else that is said once."""
    if device.type in ("cpu", "cuda"):
        return True
    bench.cannot_see.append(f"memory at its peak on {device}: torch tells it of the CPU and of CUDA devices only")
    return False


def peak_bytes(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes of tensors at the peak of `work`, beyond what there was before; what it returns is held until its end.

    On the CPU every allocation is seen by torch's profiler, which the noise of a process's resident size is not in.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        held = work()
        wait_for(device)
        taken = torch.cuda.max_memory_allocated(device) - before
        del held
        return taken
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        held = work()
    del held
    assert watched.profiler is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
