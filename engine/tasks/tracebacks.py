"""Errors of the user's own code, in one sentence: the line of the user's that caused them, not one of ours."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

OUTSIDE = (Path(__file__).parents[2], *{Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")})
"""Folders of others' code, even where they lie within the user's."""


def explain_user_error(error: BaseException, file: Path) -> str:
    """`train_me.py, line 12, in forward: x = self.fc(x): RuntimeError: …`, in one line.

    `file` is the user's file; modules beside it and below count as the user's too.
    """
    what = one_line(error)
    where = user_line(error, file)
    return f"{where}: {what}" if where else f"{file.name}: {what}"


def user_line(error: BaseException, file: Path) -> str:
    """The innermost line of the user's that `error` came through: name, number, function, source; empty if none."""
    if isinstance(error, SyntaxError) and error.filename and is_of(Path(error.filename), file):
        return _place(Path(error.filename), file, error.lineno or 0, "", (error.text or "").strip())
    for cause in _causes(error):
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            path = Path(frame.filename)
            if is_of(path, file):
                line = (linecache.getline(frame.filename, frame.lineno or 0) or frame.line or "").strip()
                return _place(path, file, frame.lineno or 0, frame.name, line)
    return ""


def is_of(path: Path, file: Path) -> bool:
    """Is `path` the user's `file`, or a module in its folder that is not installed there?"""
    if path == file:
        return True
    return path.is_relative_to(file.parent) and not any(path.is_relative_to(folder) for folder in OUTSIDE)


def one_line(error: BaseException) -> str:
    """Kind and message of an error."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _place(path: Path, file: Path, number: int, function: str, source: str) -> str:
    name = path.relative_to(file.parent) if path.is_relative_to(file.parent) else path
    inside = f", in {function}" if function and function != "<module>" else ""
    return f"{name}, line {number}{inside}" + (f": {source}" if source else "")
