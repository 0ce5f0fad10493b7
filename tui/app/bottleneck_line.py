"""One line on where a run's time goes. It uses only what the run itself or the lab has measured."""

from __future__ import annotations

from epochtop.engine.protocol.quantities import format_quantity
from epochtop.tui.state.run import RunState

LEAST_S = 1.0
"""Training time in seconds before the figures mean anything."""
DEVICE_BOUND, HOST_BOUND = 0.5, 0.1
"""Share of the time for which the loop waited for its device: from the first on the device sets the pace, up to the
second the host does. A loop that falls behind never waits; one that is ahead waits until it is one window ahead."""


def bottleneck_line(state: RunState, prior_finding: str = "") -> str:
    """The verdict; empty without figures. `prior_finding` is the lab's result for the same job on the same host."""
    if state.started is None or state.step == 0:
        return ""
    if state.switched is not None and state.executor == state.switched.executor != "eager":
        return f"{state.executor}: {state.switched.why}"
    if prior_finding:
        return prior_finding
    if state.seconds < LEAST_S:
        return ""
    step_time = f"{format_quantity(state.seconds / state.step, 's')} a step"
    if not state.started.device.startswith("cuda"):
        return _on_cpu(state, step_time)
    share = state.waited_s / state.seconds
    if share >= DEVICE_BOUND:
        fp32 = state.record is None or state.record.spec.precision == "fp32"
        return f"device-bound: {step_time}, {share:.0%} waited for it · {_hint('precision=bf16' if fp32 else '')}"
    if share <= HOST_BOUND:
        fallback = f" · {_fallback(state)}" if state.executor == "eager" and _fallback(state) else ""
        return f"host-bound: {step_time}, {share:.0%} waited · {_hint(_graph(state))}{fallback}"
    return f"host and device about even: {step_time}, {share:.0%} waited · {_hint('')}"


def _on_cpu(state: RunState, step_time: str) -> str:
    """There is no device to wait for: the step time and the executor."""
    if state.executor != "eager":
        return f"{state.executor}: {step_time} · {_hint('')}"
    if fallback := _fallback(state):
        return f"{step_time}, eager · {_hint('')} · {fallback}"
    spec = state.record.spec if state.record is not None else None
    if spec is not None and spec.executor == "auto" and spec.processes == 1 and not state.over:
        return f"{step_time}, eager: auto has timed no graph so far"
    return f"{step_time}, eager · {_hint(_graph(state))}"


def _graph(state: RunState) -> str:
    """The setting `executor=graph`, if it could help: steps are eager, no graph was refused, and there is one process."""
    several = state.record is not None and state.record.spec.processes > 1
    return "" if state.executor != "eager" or several or _fallback(state) else "executor=graph"


def _fallback(state: RunState) -> str:
    """Why steps are eager although another executor was requested; empty otherwise."""
    if state.switched is not None:
        return state.switched.why
    return state.started.fallback if state.started is not None else ""


def _hint(setting: str) -> str:
    """A setting may help, which is not a promise: key a measures it."""
    return f"{setting} may help: press a" if setting else "press a to see where it goes"
