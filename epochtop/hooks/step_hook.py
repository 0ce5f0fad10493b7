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


def make_step_hook(is_compiling: Callable[[], bool], meter: StepMeter) -> StepHook:
    """A hook for `register_optimizer_step_post_hook` that lets `meter` record the step, except while compiling.

    It takes a usual step itself, on the fast path. `is_compiling` is a function of torch.compiler, which torch.compile
    knows.
    """
    fast, clock = meter.fast, perf_counter

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        if is_compiling():
            return
        path = fast
        if path.reference() is optimizer and path.loss is not None and path.run._gate is None:  # type: ignore[union-attr]
            try:
                [group], entries = optimizer.param_groups, path.entries
                if group["lr"] is path.rate and len(entries) < QUEUE_ENTRIES:  # type: ignore[arg-type]
                    now = clock()
                    entries.extend((path.loss, now))  # type: ignore[union-attr]
                    path.loss, path.expected_class, path.previous = None, path.loss_class, now
                    path.step += 1
                    return
            except (KeyError, ValueError):  # no learning rate or several
                pass
        meter.stepped(optimizer)

    return after_step
