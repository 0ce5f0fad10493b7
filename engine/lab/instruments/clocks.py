"""Clocks of a device: they wait for queued work before they read the time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import torch

PIECE_S = 0.001
"""Length of a piece of work on the CPU: shorter than the time for which a neighbor interrupts it."""


def wait_for(device: torch.device) -> None:
    """Wait until the queued work of `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def elapsed(device: torch.device, work: Callable[[], object]) -> Callable[[int], float]:
    """A run of `work` N times in a row, with one wait for the device at the end: its seconds, interruptions included."""

    def run(times: int) -> float:
        wait_for(device)
        start = perf_counter()
        for _ in range(times):
            work()
        wait_for(device)
        return perf_counter() - start

    return run


def repeated(device: torch.device, work: Callable[[], object]) -> Callable[[int], float]:
    """A run of `work` N times in a row: the seconds of N undisturbed repetitions.

    The work must be the same every time. Devices other than the CPU are timed as by `elapsed`: pieces would empty their
    queues.
    """
    return undisturbed(elapsed(device, work)) if device.type == "cpu" else elapsed(device, work)


def undisturbed(timed: Callable[[int], float]) -> Callable[[int], float]:
    """Runs `timed` in short pieces; the seconds of N repetitions are N times the median of the pieces.

    So pieces that another program interrupts do not count.
    """

    def run(times: int) -> float:
        pieces: list[float] = []
        left, size, total_s = times, 1, 0.0
        while left > 0:
            count = min(size, left)
            seconds = timed(count)
            total_s += seconds
            left -= count
            if seconds < PIECE_S / 2 and left > 0:
                size *= 2  # still growing: pieces this short are mostly the first, slow repetitions
            else:
                pieces.append(seconds / count)
        return times * statistics.median(pieces) if len(pieces) > 2 else total_s

    return run
