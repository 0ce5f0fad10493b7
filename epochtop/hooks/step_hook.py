"""The function that torch calls after every optimizer step. Alone in its file because torch.compile inlines it.

Within a compiled step it must come to nothing; anything else would break the graph.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    StepHook = Callable[[Any, Any, Any], None]


def make_step_hook(torch: Any, stepped: Callable[[Any], None]) -> StepHook:
    """A hook for `register_optimizer_step_post_hook` that calls `stepped` with the optimizer, except while compiling."""

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_dynamo_compiling():
            stepped(optimizer)

    def after_step_of_torch_2_1(optimizer: Any, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling():
            stepped(optimizer)

    def after_step_of_old_torch(optimizer: Any, args: Any, kwargs: Any) -> None:
        stepped(optimizer)

    major, minor = map(int, torch.version.__version__.split(".")[:2])
    if (major, minor) < (2, 1):
        return after_step_of_old_torch
    return after_step if (major, minor) >= (2, 4) else after_step_of_torch_2_1
