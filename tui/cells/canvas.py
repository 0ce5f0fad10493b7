"""The row type that every widget paints, and a canvas to draw rows on.

A row is characters, each with the role that decides its style. Never imports Textual or Rich.
"""

from __future__ import annotations

from typing import NamedTuple

BLANK = 0
"""The role of a cell without ink."""


class Row(NamedTuple):
    """A row of cells."""

    text: str
    """One character per cell."""
    roles: tuple[int, ...]
    """One role per cell; see :mod:`epochtop.tui.cells.rows`."""


class Canvas:
    """A rectangle of cells, each a character and its role. Row 0 is at the top."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.cells = [[" "] * width for _ in range(height)]
        self.roles = [[BLANK] * width for _ in range(height)]

    def put(self, column: int, row: int, text: str, role: int, *, over: bool = True) -> None:
        """Write `text`, clipped to the canvas. With `over` false, write into blank cells only."""
        if not 0 <= row < self.height:
            return
        for offset, char in enumerate(text, column):
            if 0 <= offset < self.width and (over or self.cells[row][offset] == " "):
                self.cells[row][offset] = char
                self.roles[row][offset] = role

    def rows(self) -> list[Row]:
        """All rows, from top to bottom."""
        return [Row("".join(cells), tuple(roles)) for cells, roles in zip(self.cells, self.roles, strict=True)]
