"""What a user is told about a recording that is not complete: on standard error, and in the log of the run.

Imports built-in modules only.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MOST = 100
"""Most different problems that are reported."""
VALUE_IGNORED = "value_ignored"
"""Code of the warning that something the script logs is not recorded."""


class UnusableError(Exception):
    """A value is not a number. The message completes the sentence `NAME is …`."""


class Reports:
    """Tells the user about each problem once. Never raises."""

    def __init__(self, write_event: Callable[[dict[str, Any]], None]) -> None:
        """`write_event` records an event of the run format."""
        self._write_event = write_event
        self._known: set[str] = set()

    def __call__(self, message: str, key: str = "") -> bool:
        """Report a problem on standard error. False if one with this key, or this message, was reported before."""
        key = key or message
        if key in self._known or len(self._known) >= MOST:
            return False
        self._known.add(key)
        try:
            sys.stderr.write(f"epochtop: {message}\n")
        except Exception:  # noqa: S110 - closed, or replaced by an object of the script
            pass
        return True

    def ignored(self, message: str, key: str = "") -> None:
        """Report that a value is not recorded, also as a warning in the log of the run."""
        if self(message, key):
            self._write_event({"type": "Warned", "message": message, "code": VALUE_IGNORED})


def describe(value: Any) -> str:
    """What a value is, without looking into it."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    article = "an" if name[:1] in "aeiou" else "a"
    return f"{article} {name}"
