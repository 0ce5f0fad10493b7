"""The guide as a screen that scrolls; escape leads back."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Footer

from epochtop.engine.lab.catalog import NAMES
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import EMPTY, FIRST, STRONG, TEXT, labelled, row, wrapped
from epochtop.tui.cells.view import Page
from epochtop.tui.screens.guide import GUIDE

WIDEST = 100
"""Cells beyond which lines are hard to follow."""
TERM = 11


def guide(width: int) -> list[Row]:
    """All of it in rows of at most `width` cells; experiments that are not there are not pointed at."""
    cells = min(width, WIDEST)
    rows: list[Row] = []
    for block in GUIDE.strip().split("\n\n"):
        found = _block(block, cells)
        rows += [*found, EMPTY] if found else []
    return rows[:-1]


def _block(block: str, width: int) -> list[Row]:
    if block.startswith("# "):
        return [row((block[2:], STRONG))]
    if block.startswith("> "):
        pairs = [line[2:].split(" | ") for line in block.splitlines()]
        return labelled("See it", [f"{name}: {what}" for name, what in pairs if name in NAMES], width, FIRST)
    text = " ".join(block.split("\n"))
    term, bar, meaning = text.partition(" | ")
    return wrapped(meaning, width, TEXT, term.ljust(TERM)) if bar else wrapped(text, width)


class GuideScreen(ModalScreen[None]):
    """Over the whole screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,g,f1", "dismiss", "back", id="guide.back", tooltip="Back to where you were"),
        Binding("ctrl+q", "app.quit", "quit", id="guide.quit"),
    ]

    def compose(self) -> ComposeResult:
        """The rows and the keys."""
        page = Page(lambda width, height: guide(width), id="guide")
        page.border_title = "Guide"
        page.border_subtitle = "arrows and page keys scroll"
        yield page
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Keys scroll at once."""
        self.query_one(Page).focus()
