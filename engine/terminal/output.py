"""Standard output and standard error of every command. No other module writes to them.

Text for people is always made plain, because a pipe often ends at a terminal (`epochtop runs | less`). Data for programs
(JSON, CSV) and the log of an engine keep the original, unless they go straight to a terminal.
"""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import TextIO, cast

from epochtop.engine.terminal.plain import plain_json, plain_line, plain_text

_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
_CLEAR_LINE = "\r\x1b[K"


def write(text: str) -> None:
    """Write text for people to standard output."""
    sys.stdout.write(plain_text(text))


def write_error(text: str) -> None:
    """Write text for people to standard error."""
    sys.stderr.write(plain_text(text))


def write_colored(text: str) -> None:
    """Write rows of ours to standard output; color sequences stay. Foreign text in a row must be plain already."""
    sys.stdout.write("".join(part if _COLOR.fullmatch(part) else plain_text(part) for part in _COLOR.split(text)))


def write_json(json: bytes | str) -> None:
    """Write one JSON value and a newline to standard output."""
    text = json if isinstance(json, str) else json.decode()
    sys.stdout.write((plain_json(text) if sys.stdout.isatty() else text) + "\n")


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
    return cast(TextIO, _PlainOutput()) if sys.stdout.isatty() else sys.stdout


class _PlainOutput:
    """Standard output that makes text plain."""

    def write(self, text: str) -> int:
        write(text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            write(line)

    def flush(self) -> None:
        sys.stdout.flush()
