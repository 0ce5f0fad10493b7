"""Times calls of models: of the outermost module, whatever it calls. Never imports torch."""

from __future__ import annotations

import functools
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class ForwardTimer:
    """While installed, wraps `torch.nn.Module.__call__`: hooks of modules would make torch.compile compile again."""

    def __init__(self, torch: Any, add: Callable[[str, float], None]) -> None:
        self._module, self._add = torch.nn.Module, add
        self._original: Any = None
        self._inside = False

    def install(self) -> None:
        """Begin to time."""
        self._original = original = self._module.__call__

        @functools.wraps(original)
        def __call__(module: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            if self._inside:
                return original(module, *args, **kwargs)
            self._inside = True
            began = perf_counter()
            try:
                return original(module, *args, **kwargs)
            finally:
                self._inside = False
                self._add("forward", began)

        self._module.__call__ = __call__

    def remove(self) -> None:
        """Restore the call."""
        self._module.__call__ = self._original
