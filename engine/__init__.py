"""Training runs that are directories. Importing this package costs nothing; see engine.protocol.

`engine.Task` is for scripts of one's own; it is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.task import Task as Task

__all__ = ["Task"]


def __getattr__(name: str) -> Any:
    if name == "Task":
        from engine.task import Task

        return Task
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
