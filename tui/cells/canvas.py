"""Rows of terminal cells: characters, each with the role that decides its style, and what changed between two rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

BLANK = 0
"""The role of a cell that nobody has drawn."""


Row = tuple[str, tuple[int, ...]]
"""The characters of a row of cells and the role of each."""


class Canvas:
    """A rectangle of cells, each a character and the role that decides its style. Row 0 is at the top."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.cells = [[" "] * width for _ in range(height)]
        self.roles = [[BLANK] * width for _ in range(height)]

    def put(self, column: int, row: int, text: str, role: int, *, over: bool = True) -> None:
        """Write `text`; with `over` false only into blank cells. What lies outside is left out."""
        if not 0 <= row < self.height:
            return
        for offset, char in enumerate(text, column):
            if 0 <= offset < self.width and (over or self.cells[row][offset] == " "):
                self.cells[row][offset] = char
                self.roles[row][offset] = role

    def rows(self) -> list[Row]:
        """All rows, from above."""
        return [("".join(cells), tuple(roles)) for cells, roles in zip(self.cells, self.roles, strict=True)]


def strip(row: Row, styles: Mapping[int, Style]) -> Strip:
    """A row as a strip of as few segments as possible: blanks join the run before them."""
    text, roles = row
    merged, current = [], BLANK
    for char, role in zip(text, roles, strict=True):
        if char != " ":
            current = role
        merged.append(current)
    segments, start = [], 0
    for role, run in groupby(merged):
        stop = start + len(list(run))
        segments.append(Segment(text[start:stop], styles[role]))
        start = stop
    return Strip(segments, len(text))


def difference(old: Row, new: Row) -> tuple[int, int] | None:
    """The first and one past the last cell that differ; None when none does."""
    if old == new:
        return None
    changed = [i for i, (a, b) in enumerate(zip(zip(*old, strict=True), zip(*new, strict=True), strict=True)) if a != b]
    return changed[0], changed[-1] + 1
