"""TF32 is a process-wide setting, so each measurement sets and restores it."""

from __future__ import annotations

from collections.abc import Callable

from epochtop.engine.device.tf32 import tf32


def with_tf32(allowed: bool, run: Callable[[int], float]) -> Callable[[int], float]:
    """`run` with the setting; the clock of `run` does not include setting it."""

    def switched(times: int) -> float:
        with tf32(allowed):
            return run(times)

    return switched
