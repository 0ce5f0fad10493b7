"""Runs the agent from source texts that came over the connection: nothing is written to the disk of the other machine.

This module is sent as the first text and executed by itself, so it imports the standard library only.
"""

from __future__ import annotations

import json
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class SentModules(MetaPathFinder, Loader):
    """Finds modules among texts by name. A name without a text that others begin with is a package."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, if it was sent."""
        is_package = any(name.startswith(fullname + ".") for name in self._texts)
        if fullname in self._texts or is_package:
            return ModuleSpec(fullname, self, is_package=is_package)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the text."""
        name = module.__name__
        code = compile(self._texts.get(name, ""), f"<{name}>", "exec")
        exec(code, module.__dict__)  # noqa: S102 - our own source, which the viewer sends through ssh


def start(message: str) -> None:
    """Run the agent. `message` is a JSON object with the texts of the `modules` and the `options` of the agent."""
    content = json.loads(message)
    sys.meta_path.insert(0, SentModules(content["modules"]))
    from epochtop.remote.agent import main

    main(content["options"])
