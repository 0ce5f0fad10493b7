"""Standard output and standard error of every command. No other module writes to them.

Text for people is always made plain, because a pipe often ends at a terminal (`epochtop runs | less`). Data for programs
(JSON, CSV) and the log of an engine keep the original, unless they go straight to a terminal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TextIO, TypeVar, cast

from epochtop.engine.terminal.plain import plain_json, plain_line, plain_text

_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
Result = TypeVar("Result")
_CLEAR_LINE = "\r\x1b[K"


class OutputError(OSError):
    """Standard output is full or closed."""


def guarded(command: Callable[[], int]) -> int:
    """The exit status of a command; 1, after one line on standard error, if standard output cannot be written."""
    try:
        try:
            status = command()
        except SystemExit:
            flush()
            raise
        flush()
    except BrokenPipeError:  # the reader is gone: nothing is missing
        drop_output()
        return 0
    except OutputError as error:
        write_error(f"epochtop: {error.strerror}\n")
        drop_output()
        return 1
    finally:
        _flush_errors()
    return status


def drop_output(descriptor: int = 1) -> None:
    """Discard what standard output has not taken, so that the end of the process does not try again.

    Python would exit with status 120. `descriptor` 2 is standard error.
    """
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        if nowhere != descriptor:
            os.close(nowhere)


def _flush_errors() -> None:
    """Write what is buffered to standard error, or discard it, for example when the terminal has hung up."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        drop_output(2)


def flush() -> None:
    """Write what is buffered to standard output. Raises OutputError and BrokenPipeError."""
    if sys.stdout is not None:
        printing(sys.stdout.flush)


def _put(text: str) -> None:
    """Write to standard output. Raises OutputError and BrokenPipeError."""
    if sys.stdout is None:
        raise OutputError(errno.EBADF, "standard output is closed")
    printing(lambda: sys.stdout.write(text))


def printing(action: Callable[[], Result]) -> Result:
    """The result of an action that writes to standard output. Raises OutputError and BrokenPipeError."""
    try:
        return action()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.errno, f"standard output cannot be written: {error.strerror}") from None


def write(text: str) -> None:
    """Write text for people to standard output."""
    _put(plain_text(text))


def write_error(text: str) -> None:
    """Write text for people to standard error, if it can be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(plain_text(text))


def write_colored(text: str) -> None:
    """Write rows of ours to standard output; color sequences stay. Foreign text in a row must be plain already."""
    _put("".join(part if _COLOR.fullmatch(part) else plain_text(part) for part in _COLOR.split(text)))


def write_json(json: bytes | str) -> None:
    """Write one JSON value and a newline to standard output."""
    text = json if isinstance(json, str) else json.decode()
    _put((plain_json(text) if is_terminal() else text) + "\n")


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def write_log(text: str) -> None:
    """Write to an engine's standard error, which is usually the run's output.log."""
    sys.stderr.write(plain_text(text) if sys.stderr.isatty() else text)


def plain_tracebacks() -> None:
    """Write the traceback of an unexpected error as :func:`write_log` does: a message may quote foreign text."""

    def write_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        import traceback  # an error is rare

        write_log("".join(traceback.format_exception(kind, error, trace)))

    sys.excepthook = write_traceback


def write_sequence(sequence: str) -> None:
    """Write a control sequence of ours to standard output, which must be a terminal."""
    sys.stdout.write(sequence)
    sys.stdout.flush()


def show_progress(text: str) -> None:
    """Overwrite the line of progress on standard error, which must be a terminal."""
    sys.stderr.write(f"\r{plain_line(text)}\x1b[K")


def clear_progress() -> None:
    """Remove the line of progress."""
    sys.stderr.write(_CLEAR_LINE)


def data_output() -> TextIO:
    """Standard output for rows of CSV or JSON."""
    return cast(TextIO, _Output(write if is_terminal() else _put))


class _Output:
    """Standard output, written with `put`."""

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put

    def write(self, text: str) -> int:
        self._put(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._put(line)

    def flush(self) -> None:
        flush()
