"""The sources of a custom task: stored with a run, so that its weights are never combined with code that has changed.

Never imports torch.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import linecache
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from epochtop.engine.protocol.record import SourceFile, TaskRecord
from epochtop.engine.runs.ownership import code_risks
from epochtop.engine.runs.reader import read_task_record

MOST_BYTES = 1 << 20
"""Largest size of the sources of a task that are stored."""


def task_record(file: Path, content: bytes, modules: Mapping[str, Path]) -> TaskRecord:
    """The record of a task that was loaded from `file` and imported `modules`, by name. Compiled modules are left out."""
    contents = [("", file, content)]
    for name, path in sorted(modules.items()):
        if path.suffix == ".py":
            with contextlib.suppress(OSError):
                contents.append((name, path, path.read_bytes()))
    fits = sum(len(content) for _, _, content in contents) <= MOST_BYTES
    sources = tuple(
        SourceFile(
            module=name,
            path=str(path),
            sha256=hashlib.sha256(content).hexdigest(),
            text=importlib.util.decode_source(content) if fits else None,
        )
        for name, path, content in contents
    )
    return TaskRecord(working_folder=str(_current_folder() or file.parent), sources=sources)


def stored_record(run: Path) -> TaskRecord | None:
    """The record of a run's task; without sources if another user could have written them. Raises Invalid."""
    record = read_task_record(run)
    return without_text(record) if record is not None and code_risks(run) else record


def without_text(record: TaskRecord) -> TaskRecord:
    """The record for a task that is loaded from its files."""
    sources = tuple(msgspec.structs.replace(source, text=None) for source in record.sources)
    return msgspec.structs.replace(record, sources=sources)


def describe_changes(record: TaskRecord | None, task: str) -> str:
    """How a task's files differ from those that the run was trained with, and which are used; empty if they do not."""
    if record is None:
        return f"the run stores no copy of {task.rpartition(':')[0]}; the file is used as it is now"
    changed = changed_files(record)
    if not changed:
        return ""
    subject = f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since the run started"
    return (
        f"{subject}; the run's stored copy is used"
        if record.stored
        else f"{subject}; the files are used as they are now"
    )


def changed_files(record: TaskRecord) -> list[str]:
    """Names of the files that have changed since, or are gone."""
    return [Path(source.path).name for source in record.sources if _digest(Path(source.path)) != source.sha256]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


# --- stored sources in place of files --------------------------------------------------------------------------


class StoredModules(MetaPathFinder, Loader):
    """Imports modules from stored sources. They keep the names of their files, next to which they may look for data."""

    def __init__(self, sources: Iterable[SourceFile]) -> None:
        self._sources = {source.module: source for source in sources if source.module}
        self._folders = {
            parent: str(Path(source.path).parents[depth])
            for name, source in self._sources.items()
            for depth, parent in enumerate(_parents(name))
        }
        """Folders of packages without a file of their own, by name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a stored module; None for any other one."""
        source = self._sources.get(fullname)
        if source is None:
            return self._namespace(fullname)
        spec = ModuleSpec(fullname, self, origin=source.path, is_package=Path(source.path).name == "__init__.py")
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(str(Path(source.path).parent))
        return spec

    def _namespace(self, fullname: str) -> ModuleSpec | None:
        folder = self._folders.get(fullname)
        if folder is None:
            return None
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [folder]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Execute a stored module."""
        source = self._sources[module.__name__]
        code = compile(source.text or "", source.path, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - imports of the user's task; another owner's only after a question


class LaterImports(MetaPathFinder):
    """Finds modules in the folder of a task that its code imports while it trains, without writing bytecode next to them."""

    def __init__(self, folder: Path, in_packages: bool) -> None:
        """Finds modules inside packages, or else those in the folder itself."""
        self.folder, self._in_packages = folder, in_packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module in the folder; None for any other one."""
        if (path is not None) != self._in_packages:
            return None
        folders = [str(self.folder)] if path is None else [one for one in path if Path(one).is_relative_to(self.folder)]
        specs = (FileFinder(one, (_SourceLoader, SOURCE_SUFFIXES)).find_spec(fullname) for one in folders)
        return next((spec for spec in specs if spec is not None and spec.loader is not None), None)


class _SourceLoader(SourceFileLoader):
    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write no bytecode: an edit within the same second would not be noticed."""


def mentioned_modules(file: Path, content: bytes) -> dict[str, Path]:
    """The modules next to `file` that it or one of them imports anywhere, also inside functions, by name."""
    modules: dict[str, Path] = {}
    waiting = [("", content)]
    while waiting:
        package, source = waiting.pop()
        for name in _imported_names(package, source):
            place = file.parent.joinpath(*name.split("."))
            path = next((one for one in (place / "__init__.py", place.with_suffix(".py")) if one.is_file()), None)
            if path is not None and path != file and name not in modules:
                modules[name] = path
                with contextlib.suppress(OSError):
                    waiting.append((name if path.name == "__init__.py" else name.rpartition(".")[0], path.read_bytes()))
    return modules


def _imported_names(package: str, source: bytes) -> set[str]:
    """Names that import statements in a module of a package may mean, with those of the packages around them."""
    try:
        statements = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for one in statements if isinstance(one, ast.Import) for alias in one.names}
    for one in statements:
        if isinstance(one, ast.ImportFrom):
            parts = package.split(".") if one.level else []
            base = ".".join([*parts[: len(parts) - one.level + 1], *([one.module] if one.module else [])])
            names |= {base, *(f"{base}.{alias.name}".strip(".") for alias in one.names)}
    return {name for full in names if full for name in (full, *_parents(full))}


def _parents(name: str) -> list[str]:
    """The packages around a module, the innermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


@contextlib.contextmanager
def in_place_of_files(record: TaskRecord) -> Iterator[None]:
    """Import the stored modules instead of the files; errors show stored lines."""
    modules = StoredModules(record.sources)
    for source in record.sources:
        lines = (source.text or "").splitlines(keepends=True)
        linecache.cache[source.path] = (len(source.text or ""), None, lines, source.path)
    sys.meta_path.insert(0, modules)
    try:
        yield
    finally:
        sys.meta_path.remove(modules)


def forget_stored_lines(folder: Path) -> None:
    """Let errors show the lines of the files in a folder again."""
    for name, entry in list(linecache.cache.items()):
        if len(entry) == 4 and entry[1] is None and Path(name).is_relative_to(folder):
            del linecache.cache[name]


# --- the folder that relative paths refer to ---------------------------------------------------------------------


def enter_working_folder(record: TaskRecord | None) -> None:
    """Make the task's working folder the current one, if it still exists."""
    if record is None:
        return
    for name in ("EPOCHTOP_HOME", "EPOCHTOP_CACHE", "EPOCHTOP_DATA"):  # they may be relative to the previous one
        if value := os.environ.get(name):
            os.environ[name] = str(Path(value).expanduser().absolute())
    with contextlib.suppress(OSError):
        os.chdir(record.working_folder)


@contextlib.contextmanager
def working_folder(record: TaskRecord | None) -> Iterator[None]:
    """The task's working folder as the current one."""
    previous = _current_folder()
    enter_working_folder(record)
    try:
        yield
    finally:
        if previous is not None:
            with contextlib.suppress(OSError):
                os.chdir(previous)


def _current_folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it has been removed
        return None
