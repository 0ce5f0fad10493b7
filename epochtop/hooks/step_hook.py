"""The function that torch calls after every optimizer step. Alone in its file because torch.compile inlines it.

Within a compiled step it must come to nothing; anything else would break the graph.
"""

from __future__ import annotations

from time import perf_counter

from epochtop.recording.writer import QUEUE_ENTRIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from epochtop.hooks.steps import StepMeter

    StepHook = Callable[[Any, Any, Any], None]


def make_step_hook(torch: Any, meter: StepMeter) -> StepHook:
    """A hook for `register_optimizer_step_post_hook` that lets `meter` record the step, except while compiling.

    With torch 2.4 or later, it takes a usual step itself: one with one loss on the CPU, at the learning rate of the step
    before. Between two steps, code leaves the caches of the processor and then costs several times more than in a loop of
    its own.
    """
    waiting, clock = meter.waiting, perf_counter

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            return
        track = meter.usual
        if track is not None and track.reference() is optimizer and not meter.data_wait_s:
            try:
                [loss], [group], run = waiting, optimizer.param_groups, meter.run
                if (
                    loss.__class__ is float
                    and group["lr"] is track.only_rate
                    and run._gate is None  # type: ignore[union-attr]
                    and len(run._entries) < QUEUE_ENTRIES  # type: ignore[union-attr]
                ):
                    waiting.clear()
                    now = clock()
                    run._entries.extend((loss, now - track.previous))  # type: ignore[union-attr]
                    track.previous = now
                    track.step += 1
                    return
            except (KeyError, ValueError):  # no loss or several, no rate or several
                pass
        meter.stepped(optimizer)

    def after_step_of_torch_2_1(optimizer: Any, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling():
            meter.stepped(optimizer)

    def after_step_of_old_torch(optimizer: Any, args: Any, kwargs: Any) -> None:
        meter.stepped(optimizer)

    major, minor = map(int, torch.version.__version__.split(".")[:2])
    if (major, minor) < (2, 1):
        return after_step_of_old_torch
    return after_step if (major, minor) >= (2, 4) else after_step_of_torch_2_1
