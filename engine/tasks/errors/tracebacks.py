"""Errors in the user's code, as one line that names the user's line and never one of epochtop's. Never imports torch."""

from __future__ import annotations

import inspect
import linecache
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

OUTSIDE = (Path(__file__).parents[2], *{Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")})
"""Folders of epochtop and of installed packages, which are not the user's code even inside the user's folder."""
MAX_MESSAGE, MAX_SOURCE = 300, 120
"""Characters of an error's message and of a line of source that are shown."""


class TaskError(Exception):
    """Something wrong with what the user's code returned, in a complete sentence."""


def explain_user_error(error: BaseException, file: Path, owners: Iterable[Any] = ()) -> str:
    """An error as one line: `train_me.py, line 12, in forward: x = self.fc(x): RuntimeError: ...`.

    `file` is the user's file; modules in its folder and below count as the user's code too. If none of its lines is in the
    traceback, the definition of the first of `owners` that is the user's stands for it.
    """
    return f"{place(error, file, owners)}: {one_line(error)}"


def place(error: BaseException, file: Path, owners: Iterable[Any] = ()) -> str:
    """The user's line that an error comes from, else where the first of `owners` is defined, else the file's name."""
    lines = (definition(owner, file) for owner in owners)
    return user_line(error, file) or next(filter(None, lines), "") or file.name


def definition(owner: Any, file: Path) -> str:
    """Where the user defines a function, the method of a module or of another object; empty if the user does not."""
    while isinstance(owner, partial):
        owner = owner.func
    functions = (owner, *(getattr(type(owner), name, None) for name in ("forward", "update", "__call__")))
    for function in functions:
        code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
        if isinstance(code, CodeType) and is_of(Path(code.co_filename), file):
            source = _source(code.co_filename, code.co_firstlineno)
            return _place(Path(code.co_filename), file, code.co_firstlineno, code.co_name, source)
    return ""


def user_line(error: BaseException, file: Path) -> str:
    """The innermost user line in the traceback of `error`: file, number, function, source; empty if there is none.

    An error may have been raised in another process: then its attribute `user_frames` has files, numbers and functions.
    """
    if isinstance(error, SyntaxError) and error.filename and is_of(Path(error.filename), file):
        return _place(Path(error.filename), file, error.lineno or 0, "", (error.text or "").strip())
    for cause in _causes(error):
        frames = [
            (frame.filename, frame.lineno or 0, frame.name) for frame in traceback.extract_tb(cause.__traceback__)
        ]
        for name, number, function in reversed([*frames, *getattr(cause, "user_frames", ())]):
            if is_of(Path(name), file):
                return _place(Path(name), file, number, function, _source(name, number))
    return ""


def is_of(path: Path, file: Path) -> bool:
    """Whether `path` is the user's `file`, or a module in its folder that is not an installed package."""
    if path == file:
        return True
    return path.is_relative_to(file.parent) and not any(path.is_relative_to(folder) for folder in OUTSIDE)


def one_line(error: BaseException) -> str:
    """Type and message of an error, in one line; a long message is cut. Complete sentences of ours need no type."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    text = " ".join(str(error).split())
    text = text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"
    if isinstance(error, TaskError) or hasattr(error, "user_frames"):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then its causes."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _place(path: Path, file: Path, number: int, function: str, source: str) -> str:
    name = path.relative_to(file.parent) if path.is_relative_to(file.parent) else path
    inside = f", in {function}" if function and function != "<module>" else ""
    source = source if len(source) <= MAX_SOURCE else f"{source[:MAX_SOURCE]}…"
    return f"{name}, line {number}{inside}" + (f": {source.removesuffix(':')}" if source else "")


def _source(name: str, number: int) -> str:
    return linecache.getline(name, number).strip()


def describe_value(value: object) -> str:
    """`None`, or `a value of type int`."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
