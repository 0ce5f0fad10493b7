"""How many steps may be enqueued before the loop looks at the device again.

A GPU takes work much more slowly than the host enqueues it: the launch queue holds about a thousand kernels, which may be
minutes of work. The clock of the host therefore says nothing about the device. This module uses the device's own time
between two windows. Never waits for the device.
"""

from __future__ import annotations

import math

import torch

GROWTH = 4
"""A window may have this many times the steps of the one before it, at most: the first steps of a run are not typical."""
PARTIAL = 0.1
"""Part of a step by which a window may be shorter than a refresh."""
HOST_BOUND = 2.0
"""Where the host is the slower one, windows end by its clock. The limit lies this much higher, so that it does not matter."""


class DevicePace:
    """The limit of one run. On the CPU, where nothing is enqueued, there is none."""

    def __init__(self, device: torch.device) -> None:
        self._limited = device.type != "cpu"
        self._step_s: float | None = None
        self._slack = 1.0
        self._most = 1

    def steps_within(self, seconds: float) -> float:
        """Whole steps to enqueue for this many seconds of the device's time, at least one; infinite on the CPU."""
        if not self._limited:
            return math.inf
        if self._step_s is None:
            return 1.0
        steps = math.ceil(self._slack * seconds / self._step_s - PARTIAL)  # so that a window is not read too early
        return float(max(1, min(steps, self._most)))

    def update(self, steps: int, device_s: float | None, waited: bool) -> None:
        """Adapt to a window of `steps` that the device took in `device_s` seconds; None if that is unknown.

        `waited` says whether the host had to wait for the window, so that the device is the slower one.
        """
        if not self._limited or not steps or device_s is None:
            return
        self._most = max(self._most, GROWTH * steps)
        self._step_s = max(device_s / steps, 1e-9)
        self._slack = 1.0 if waited else HOST_BOUND
