"""Clocks of a device: they wait for queued work before they read the time."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch


def wait_for(device: torch.device) -> None:
    """Wait until the queued work of `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def repeated(device: torch.device, work: Callable[[], object]) -> Callable[[int], float]:
    """A run of `work` N times in a row, with one wait for the device at the end."""

    def run(times: int) -> float:
        wait_for(device)
        start = perf_counter()
        for _ in range(times):
            work()
        wait_for(device)
        return perf_counter() - start

    return run
