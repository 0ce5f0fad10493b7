"""Rows of logged values that wait for a device. Imports built-in modules only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Window:
    """Rows that wait for a device."""

    __slots__ = ("rows", "seconds", "time", "waiting")

    def __init__(self, rows: list[tuple[int, dict[str, Any]]], time: float, seconds: float) -> None:
        self.rows, self.time, self.seconds = rows, time, seconds
        self.waiting = [value for _, values in rows for value in values.values() if type(value) is not float]

    @property
    def is_ready(self) -> bool:
        """Whether the device has computed all values."""
        while self.waiting and self.waiting[-1].is_ready:
            self.waiting.pop()
        return not self.waiting

    def discard(self) -> int:
        """Give up the values. Returns their number."""
        for _, values in self.rows:
            for value in values.values():
                if type(value) is not float:
                    value.discard()
        return sum(len(values) for _, values in self.rows)
