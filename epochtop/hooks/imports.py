"""Calls a function when the script has imported a certain module. Never imports one itself."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Patch = Callable[[Any], None]
    """Changes a module that has just been imported."""


class ImportWatcher:
    """Entry of `sys.meta_path` that lets the other entries find a watched module, and patches it after its execution."""

    def __init__(self, patches: dict[str, Patch], report: Callable[[str], None]) -> None:
        self._patches, self._report = patches, report
        self._searching: set[str] = set()
        """Modules that the other entries are looking for."""

    def install(self) -> None:
        """Begin to watch; patch the modules that are imported already."""
        sys.meta_path.insert(0, self)
        for name in [name for name in self._patches if name in sys.modules]:
            self.patch(sys.modules[name])

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a watched module, with a loader that patches it; None for any other module."""
        if name not in self._patches or name in self._searching:
            return None
        self._searching.add(name)
        try:
            spec = _find(name, path, target, self)
        finally:
            self._searching.discard(name)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = PatchingLoader(spec.loader, self.patch)  # type: ignore[assignment]
        return spec

    def patch(self, module: ModuleType) -> None:
        """Patch a module, or report why it cannot be patched."""
        try:
            self._patches[module.__name__](module)
        except Exception as error:
            self._report(f"{module.__name__} cannot be hooked: {type(error).__name__}: {error}")


def _find(name: str, path: Any, target: Any, caller: ImportWatcher) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)
        if finder is not caller and find_spec is not None:
            spec = find_spec(name, path, target)
            if spec is not None:
                return spec  # type: ignore[no-any-return]
    return None


class PatchingLoader:
    """Executes a module with its own loader, which the module keeps, then patches it."""

    def __init__(self, loader: Any, patch: Callable[[ModuleType], None]) -> None:
        self._loader, self._patch = loader, patch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module, if its own loader makes it."""
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """Execute and patch."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._patch(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
