"""Loads a custom task: executes the user's file and calls its function.

The file is executed again on every load. Every error names the user's line.
"""

from __future__ import annotations

import difflib
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import sources
from epochtop.engine.tasks.dict_rows import with_paired_rows
from epochtop.engine.tasks.errors.tracebacks import describe_value, explain_user_error, is_of
from epochtop.engine.tasks.task import MODULE_PREFIX, Task
from epochtop.engine.tasks.traits import TaskTraits
from epochtop.engine.tasks.trial import try_out


@dataclass(frozen=True)
class LoadedTask:
    """A task and the code that it was loaded from."""

    task: Task
    record: TaskRecord
    function: Callable[[], Any]
    """The user's function that returned the task."""
    traits: TaskTraits = TaskTraits()  # noqa: RUF009 - frozen
    """What its trial showed."""


def load_task(text: str, stored: TaskRecord | None = None) -> Task:
    """The task of :func:`load_recorded`, without its record."""
    return load_recorded(text, stored).task


def load_recorded(text: str, stored: TaskRecord | None = None) -> LoadedTask:
    """The task that FUNCTION in `PATH.py:FUNCTION` returns, tried with two rows. Raises Invalid for the field `task`.

    Executes the sources in `stored` instead of the files, if it has them.
    """
    stored = stored if stored is not None and stored.stored else None
    file, name = parse_task(text, must_exist=stored is None)
    with _importable(file, stored) as imported, sources.in_place_of_files(stored) if stored else nullcontext():
        content = _content(file) if stored is None else b""
        try:
            module = _execute(file, content if stored is None else stored.sources[0].text or "")
            function = _function(module, name, file)
            task = function()
        except Invalid:
            raise
        except (Exception, SystemExit) as error:
            raise Invalid("task", explain_user_error(error, file)) from error
        if not isinstance(task, Task):
            raise Invalid(
                "task", f"{file.name}: {name}() returned {describe_value(task)}; it must return an epochtop.Task"
            )
        try:
            task = with_paired_rows(task)
        except Exception as error:
            raise Invalid("task", explain_user_error(error, file)) from error
        traits = try_out(task, file, function)
        modules = sources.mentioned_modules(file, content) | imported()
        record = stored or sources.task_record(file, content, modules)
    return LoadedTask(task, record, function, traits)


def parse_task(text: str, must_exist: bool = True) -> tuple[Path, str]:
    """Absolute path and function name of `PATH.py:FUNCTION`. Raises Invalid if there is no such file."""
    path, colon, name = text.rpartition(":")
    if not colon or not path or not name.isidentifier():
        raise Invalid("task", f"{text!r} is not PATH.py:FUNCTION, for example train_me.py:make_task")
    file = Path(path).expanduser().absolute()
    if must_exist and not file.is_file():
        raise Invalid(
            "task", f"{path} is a folder; name a Python file in it" if file.is_dir() else f"there is no file {path}"
        )
    return file, name


_loaded: list[tuple[Path, set[str]]] = []
"""The file of the task that was loaded last, and the names of the modules before it, if there is one."""


@contextmanager
def _importable(file: Path, stored: TaskRecord | None) -> Iterator[Callable[[], dict[str, Path]]]:
    """Let the file import modules in its folder, freshly every time, without writing bytecode next to it.

    Yields a function that returns the files of the modules imported so far, by name. The modules stay until another task is
    loaded: batches of workers hold objects of their classes, and code may import more of them while it trains.
    """
    _forget_last_task()
    folder, dont_write_bytecode, modules_before = str(file.parent), sys.dont_write_bytecode, set(sys.modules)

    def imported() -> dict[str, Path]:
        return _modules_of(file, modules_before)

    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    sources.forget_stored_lines(file.parent)
    try:
        yield imported
    finally:
        sys.dont_write_bytecode = dont_write_bytecode
        sys.path.remove(folder)
        _loaded.append((file, modules_before))
        stored_modules = [sources.StoredModules(stored.sources)] if stored else []
        sys.meta_path[:0] = [*stored_modules, sources.LaterImports(file.parent, in_packages=True)]
        sys.meta_path.append(sources.LaterImports(file.parent, in_packages=False))


def _forget_last_task() -> None:
    """Remove the modules of the task that was loaded last, and what finds more of them."""
    while _loaded:
        for name in _modules_of(*_loaded.pop()):
            del sys.modules[name]
    kinds = sources.StoredModules, sources.LaterImports
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, kinds)]


def _modules_of(file: Path, modules_before: set[str]) -> dict[str, Path]:
    """The modules in the folder of a task that were imported since `modules_before`, without its file, by name."""
    files = {
        name: Path(source)
        for name in set(sys.modules) - modules_before
        if (source := getattr(sys.modules[name], "__file__", None))
    }
    return {name: path for name, path in files.items() if is_of(path, file) and path != file}


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Invalid("task", f"{file} cannot be read: {error.strerror}") from None


def _execute(file: Path, source: bytes | str) -> ModuleType:
    """Execute the source of the file as a module; it stays in sys.modules, so that its classes can be pickled."""
    linecache.checkcache(str(file))
    code = compile(source, str(file), "exec")
    module = ModuleType(f"{MODULE_PREFIX}{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)  # noqa: S102 - the user's task; another owner's only after a question
    return module


def _function(module: ModuleType, name: str, file: Path) -> Callable[[], Any]:
    function = getattr(module, name, None)
    if function is None:
        defined = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        suggestions = difflib.get_close_matches(name, defined, n=1) or defined[:5]
        hint = f"it has {', '.join(suggestions)}" if suggestions else "it defines no functions"
        raise Invalid("task", f"{file.name} has no function {name}; {hint}")
    if not callable(function):
        raise Invalid("task", f"{file.name}: {name} is {describe_value(function)}, not a function")
    required = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise Invalid(
            "task", f"{file.name}: {name} is called without arguments; give {', '.join(required)} a default value"
        )
    return function  # type: ignore[no-any-return]


def function_of(text: str) -> Callable[[], Any] | None:
    """The function of `PATH.py:FUNCTION`, once it has been loaded."""
    path, _, name = text.rpartition(":")
    return getattr(sys.modules.get(f"{MODULE_PREFIX}{Path(path).stem}"), name, None)
