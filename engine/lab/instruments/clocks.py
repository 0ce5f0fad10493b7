"""Clocks of a device: they wait for queued work before they read the time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import torch

PIECE_S = 0.001
"""Length of a piece of work on the CPU: shorter than the time for which a neighbor interrupts it."""
SCHEDULING = "/proc/thread-self/schedstat"
"""Linux: nanoseconds that a thread ran, nanoseconds that it waited for a CPU, and how often it got one."""


def cpu_wait_s() -> float:
    """Seconds so far for which this thread could have run, but another had its CPU; 0 where the system does not tell."""
    try:
        with open(SCHEDULING, "rb", buffering=0) as file:
            return int(file.read(128).split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0


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


def undisturbed(timed: Callable[[int], float], waited_s: Callable[[], float] = cpu_wait_s) -> Callable[[int], float]:
    """Runs `timed` in short pieces; the seconds of N repetitions are N times the median of the pieces.

    The time for which this thread waits for a CPU is no part of a piece. So a repetition that is as long as the turns of a
    neighbor takes as long as without it. Where the system does not tell that time, only the median leaves out interrupted
    pieces, which must be the minority.
    """

    def run(times: int) -> float:
        pieces: list[float] = []
        left, size, total_s = times, 1, 0.0
        while left > 0:
            count = min(size, left)
            before_s = waited_s()
            wall_s = timed(count)
            wait_s = waited_s() - before_s
            seconds = wall_s - wait_s if wait_s < wall_s else wall_s  # else it was outside the timed part
            total_s += seconds
            left -= count
            if seconds < PIECE_S / 2 and left > 0:
                size *= 2  # still growing: pieces this short are mostly the first, slow repetitions
            else:
                pieces.append(seconds / count)
        return times * statistics.median(pieces) if len(pieces) > 2 else total_s

    return run
