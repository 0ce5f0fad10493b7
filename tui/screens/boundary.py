"""The decision boundary of a classifier of two features, in half blocks: color is the class, dots are rows."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from epochtop.engine.protocol.events import Mapped

GROUND = ("#1f4e79", "#7a3b12", "#1d5c3a", "#5b2a6b", "#6b6420", "#155e63", "#6e2436", "#3f4a5a")
"""Ground colors of the classes, dark so that dots stand out, and told apart without red against green."""
DOTS = ("#8ecbff", "#ffb27a", "#8fe3b5", "#dba4f0", "#f2e58a", "#84e6ec", "#ff9fb3", "#c9d4e3")


def picture(shown: Mapped) -> Text:
    """The plane: two rows of cells a line, with the rows of data as dots."""
    dots = _dots(shown)
    text = Text(no_wrap=True)
    for line in range(0, shown.rows, 2):
        for column in range(shown.columns):
            upper = shown.cells[line * shown.columns + column]
            lower = shown.cells[min(line + 1, shown.rows - 1) * shown.columns + column]
            dot = dots.get((column, line // 2))
            ground = GROUND[upper % len(GROUND)]
            if dot is not None:
                text.append("●", Style(color=DOTS[dot % len(DOTS)], bgcolor=ground))
            else:
                text.append("▀", Style(color=ground, bgcolor=GROUND[lower % len(GROUND)]))
        text.append("\n")
    text.right_crop(1)
    return text


def _dots(shown: Mapped) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    (left, bottom), (right, top) = shown.low, shown.high
    for x, y, label in shown.points:
        column = round((x - left) / (right - left) * (shown.columns - 1))
        line = round((top - y) / (top - bottom) * (shown.rows - 1)) // 2
        found[column, line] = label
    return found


def legend(shown: Mapped) -> Text:
    """Which color is which class."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, name in enumerate(shown.classes):
        text.append("● ", Style(color=DOTS[number % len(DOTS)]))
        text.append(f"{name}   ")
    return text.append(f"before step {shown.step:,}", Style(dim=True))


class BoundaryScreen(ModalScreen[None]):
    """Shows the newest boundary until it is closed; give it newer ones with `show`."""

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

    def __init__(self, shown: Mapped) -> None:
        super().__init__()
        self._shown = shown

    def compose(self) -> ComposeResult:
        """The plane and its legend."""
        box = Vertical()
        box.border_title = "Decision boundary"
        box.border_subtitle = "escape closes"
        with box:
            yield Static(picture(self._shown), id="plane")
            yield Static(legend(self._shown), id="legend")

    def show(self, shown: Mapped) -> None:
        """Draw a newer one."""
        if shown is not self._shown:
            self._shown = shown
            self.query_one("#plane", Static).update(picture(shown))
            self.query_one("#legend", Static).update(legend(shown))
