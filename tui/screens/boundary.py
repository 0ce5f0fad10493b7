"""The decision boundary of a classifier of two features. Colors are classes, dots are rows; drawn in half blocks."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from epochtop.engine.protocol.events import Mapped
from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.cells.plain import PlainText

GROUND = ("#1f4e79", "#7a3b12", "#1d5c3a", "#5b2a6b", "#6b6420", "#155e63", "#6e2436", "#3f4a5a")
"""Background colors of the classes: dark, so that dots stand out, and distinct without red against green."""
DOTS = ("#8ecbff", "#ffb27a", "#8fe3b5", "#dba4f0", "#f2e58a", "#84e6ec", "#ff9fb3", "#c9d4e3")


def picture(boundary: Mapped) -> Text:
    """The plane, two rows of cells per line, with rows of data as dots."""
    dots = _dots(boundary)
    text = Text(no_wrap=True)
    for line in range(0, boundary.rows, 2):
        for column in range(boundary.columns):
            upper = boundary.cells[line * boundary.columns + column]
            lower = boundary.cells[min(line + 1, boundary.rows - 1) * boundary.columns + column]
            dot = dots.get((column, line // 2))
            ground = GROUND[upper % len(GROUND)]
            if dot is not None:
                text.append("●", Style(color=DOTS[dot % len(DOTS)], bgcolor=ground))
            else:
                text.append("▀", Style(color=ground, bgcolor=GROUND[lower % len(GROUND)]))
        text.append("\n")
    text.right_crop(1)
    return text


def _dots(boundary: Mapped) -> dict[tuple[int, int], int]:
    dots: dict[tuple[int, int], int] = {}
    (left, bottom), (right, top) = boundary.low, boundary.high
    for x, y, label in boundary.points:
        column = round((x - left) / (right - left) * (boundary.columns - 1))
        line = round((top - y) / (top - bottom) * (boundary.rows - 1)) // 2
        dots[column, line] = label
    return dots


def legend(boundary: Mapped) -> Text:
    """The color of every class."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, name in enumerate(boundary.classes):
        text.append("● ", Style(color=DOTS[number % len(DOTS)]))
        text.append(f"{plain_line(name)}   ")
    return text.append(f"before step {boundary.step:,}", Style(dim=True))


class BoundaryScreen(ModalScreen[None]):
    """Shows the newest decision boundary; `show` replaces it."""

    DEFAULT_CSS = """
    BoundaryScreen {
        align: center middle;
        & > Vertical { width: auto; height: auto; max-width: 100%; max-height: 100%; border: round $border; background: $surface; padding: 0 1; }
        & Static { width: auto; height: auto; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,b", "dismiss", "close", id="boundary.close"),
        Binding("ctrl+q", "app.quit", "quit", id="boundary.quit"),
    ]

    def __init__(self, boundary: Mapped) -> None:
        super().__init__()
        self._boundary = boundary

    def compose(self) -> ComposeResult:
        """The plane and its legend."""
        box = Vertical()
        box.border_title = "Decision boundary"
        box.border_subtitle = "escape closes"
        with box:
            yield PlainText(picture(self._boundary), id="plane")
            yield PlainText(legend(self._boundary), id="legend")

    def show(self, boundary: Mapped) -> None:
        """Draw a newer boundary."""
        if boundary is not self._boundary:
            self._boundary = boundary
            self.query_one("#plane", PlainText).show(picture(boundary))
            self.query_one("#legend", PlainText).show(legend(boundary))
