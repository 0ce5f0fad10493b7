"""Clocks of a device: what is enqueued on it is waited for before time is taken."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch


def wait_for(device: torch.device) -> None:
    """Until everything that was enqueued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def repeated(device: torch.device, work: Callable[[], object]) -> Callable[[int], float]:
    """For :class:`epochtop.engine.lab.instruments.sampling.Case`: `work` so many times in a row, the device waited for once at the end."""

    def run(times: int) -> float:
        wait_for(device)
        begun = perf_counter()
        for _ in range(times):
            work()
        wait_for(device)
        return perf_counter() - begun

    return run
