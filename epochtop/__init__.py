"""The public names for scripts: `from epochtop import Task, RunSpec`.

Each name is imported on first use, so importing this package costs nothing. Imports the standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochtop.engine.protocol.spec import RunSpec as RunSpec
    from epochtop.engine.tasks.task import Task as Task

__all__ = ["RunSpec", "Task"]

_MODULES = {
    "RunSpec": "epochtop.engine.protocol.spec",
    "Task": "epochtop.engine.tasks.task",
}
"""Module that defines each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562). Raises AttributeError for any other name."""
    if name in _MODULES:
        from importlib import import_module

        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'epochtop' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, including public ones that are not imported yet."""
    return sorted({*globals(), *__all__})
