"""One line on where a run's time goes: from what was measured, by the run itself or in the lab, and nothing else."""

from __future__ import annotations

from epochtop.engine.protocol.quantities import format_quantity
from epochtop.tui.state.run import RunState

LEAST_S = 1.0
"""Of training, before its figures mean anything."""
MOSTLY, HARDLY = 0.5, 0.1
"""Shares of the time for which the loop waited for its device: from which the device sets the pace, and up to which the
host does. A loop that is behind never waits; one that is ahead waits once a refresh until it is only one window ahead."""


def pace(state: RunState, known: str = "") -> str:
    """The verdict; empty while there is nothing to tell. `known` is what the lab found of the same job on the same host."""
    if state.started is None or state.step == 0:
        return ""
    if state.switched is not None and state.executor == state.switched.executor != "eager":
        return f"{state.executor}: {state.switched.why}"
    if known:
        return known
    if state.seconds < LEAST_S:
        return ""
    took = f"{format_quantity(state.seconds / state.step, 's')} a step"
    if not state.started.device.startswith("cuda"):
        return _on_cpu(state, took)
    share = state.waited_s / state.seconds
    if share >= MOSTLY:
        fp32 = state.record is None or state.record.spec.precision == "fp32"
        return f"device-bound: {took}, {share:.0%} waited for it · {_help('precision=bf16' if fp32 else '')}"
    if share <= HARDLY:
        refused = f" · {_refused(state)}" if state.executor == "eager" and _refused(state) else ""
        return f"host-bound: {took}, {share:.0%} waited · {_help(_graph(state))}{refused}"
    return f"host and device about even: {took}, {share:.0%} waited · {_help('')}"


def _on_cpu(state: RunState, took: str) -> str:
    """There is no device to wait for: the time of a step, and what its executor has said."""
    if state.executor != "eager":
        return f"{state.executor}: {took} · {_help('')}"
    if refused := _refused(state):
        return f"{took}, eager · {_help('')} · {refused}"
    spec = state.record.spec if state.record is not None else None
    if spec is not None and spec.executor == "auto" and spec.processes == 1 and not state.over:
        return f"{took}, eager: auto has timed no graph so far"
    return f"{took}, eager · {_help(_graph(state))}"


def _graph(state: RunState) -> str:
    """The setting, where steps are eager, no graph was refused, and there is one process, which a graph needs."""
    several = state.record is not None and state.record.spec.processes > 1
    return "" if state.executor != "eager" or several or _refused(state) else "executor=graph"


def _refused(state: RunState) -> str:
    """Why the run takes eager steps although another executor was wanted; empty where none was refused."""
    if state.switched is not None:
        return state.switched.why
    notes = state.started.notes if state.started is not None else ()
    return next((note for note in notes if note.startswith(("auto stays with eager", "eager instead of"))), "")


def _help(setting: str) -> str:
    """What might help is named and not promised: the key measures it."""
    return f"{setting} may help: press a" if setting else "press a to see where it goes"
