"""Errors in the user's code, as one line that names the user's line and never one of epochtop's. Never imports torch."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

OUTSIDE = (Path(__file__).parents[2], *{Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")})
"""Folders of epochtop and of installed packages, which are not the user's code even inside the user's folder."""


def explain_user_error(error: BaseException, file: Path) -> str:
    """An error as one line: `train_me.py, line 12, in forward: x = self.fc(x): RuntimeError: ...`.

    `file` is the user's file; modules in its folder and below count as the user's code too.
    """
    message = one_line(error)
    line = user_line(error, file)
    return f"{line}: {message}" if line else f"{file.name}: {message}"


def user_line(error: BaseException, file: Path) -> str:
    """The innermost user line in the traceback of `error`: file, number, function, source; empty if there is none."""
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
    """Whether `path` is the user's `file`, or a module in its folder that is not an installed package."""
    if path == file:
        return True
    return path.is_relative_to(file.parent) and not any(path.is_relative_to(folder) for folder in OUTSIDE)


def one_line(error: BaseException) -> str:
    """Type and message of an error, in one line."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    text = " ".join(str(error).split())
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
    return f"{name}, line {number}{inside}" + (f": {source}" if source else "")
