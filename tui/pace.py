"""One line on where a run's time goes: from what the run itself has measured, and nothing else."""

from __future__ import annotations

from engine.lab.figures import quantity
from tui.runstate import RunState

LEAST_S = 1.0
"""Of training, before its figures mean anything."""
MOSTLY, HARDLY = 0.5, 0.1
"""Shares of the time for which the loop waited for its device: from which the device sets the pace, and up to which the
host does. A loop that is behind never waits; one that is ahead waits once a refresh until it is only one window ahead."""


def pace(state: RunState) -> str:
    """The verdict; empty while there is nothing to tell."""
    if state.started is None or state.step == 0:
        return ""
    if state.switched is not None and state.executor == state.switched.executor != "eager":
        return f"{state.executor}: {state.switched.why}"
    if state.seconds < LEAST_S:
        return ""
    took = quantity(state.seconds / state.step, "s")
    if not state.started.device.startswith("cuda"):
        return f"a step takes {took} ({state.executor}) · a measures where it goes" if state.over else ""
    share = state.waited_s / state.seconds
    if share >= MOSTLY:
        return f"the device sets the pace: the loop waited for it {share:.0%} of the time, {took} a step"
    if share <= HARDLY:
        return f"the device waits for the host: {took} a step, of which the loop waited {share:.0%} · a measures what would help"
    return f"host and device are about even: the loop waited {share:.0%} of the time, {took} a step"
