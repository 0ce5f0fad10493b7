"""The public names for scripts: `import epochtop; epochtop.log(loss=loss)`, `from epochtop import Run, Task, RunSpec`.

Each name is imported on first use, so importing this package costs nothing. Imports the standard library only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from epochtop.engine.protocol.spec import RunSpec as RunSpec
    from epochtop.engine.tasks.task import Task as Task
    from epochtop.reading import open as open  # noqa: A004 - the public name
    from epochtop.reading import runs as runs
    from epochtop.recording.current import finish as finish
    from epochtop.recording.current import init as init
    from epochtop.recording.current import log as log
    from epochtop.recording.current import login as login
    from epochtop.recording.run import Run as Run
    from epochtop.recording.values.mappings import Entries

    config: Entries
    summary: Entries
    run: Run | None

__all__ = ["Run", "RunSpec", "Task", "config", "finish", "init", "log", "run", "runs", "summary"]
"""Without `open`, which `import *` would put in place of the built-in function."""

_MODULES = {
    "Run": "epochtop.recording.run",
    "RunSpec": "epochtop.engine.protocol.spec",
    "Task": "epochtop.engine.tasks.task",
    "finish": "epochtop.recording.current",
    "init": "epochtop.recording.current",
    "log": "epochtop.recording.current",
    "login": "epochtop.recording.current",
    "open": "epochtop.reading",
    "runs": "epochtop.reading",
}
"""Module that defines each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562). Raises AttributeError for any other name."""
    if name in _MODULES:
        value = getattr(__import__(_MODULES[name], fromlist=(name,)), name)  # importlib takes a millisecond
        globals()[name] = value
        return value
    if name in ("config", "run", "summary"):
        from epochtop.recording import current

        if name == "run":
            return current.current()
        return getattr(current.current_or_new(), name)
    if name[:2] != "__":
        from epochtop.recording.values.ignored import wandb_module_attribute

        return wandb_module_attribute(name)
    raise AttributeError(f"module 'epochtop' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, including public ones that are not imported yet."""
    return sorted({*globals(), *__all__})
