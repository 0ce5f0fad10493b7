"""The line in which a filter is typed; it shows below the grid what is wrong with the text. Never imports the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from epochtop.tui.board.filter import Filter, FilterError, parse
from epochtop.tui.cells.plain import PlainText
from epochtop.tui.forms.text_entry import Entry


class FilterLine(Horizontal):
    """An entry, and an error next to it."""

    DEFAULT_CSS = """
    FilterLine {
        height: 1;
        background: $surface;
        & #filter-mark { width: 10; padding: 0 1; color: $text-muted; }
        & Entry { width: 1fr; }
        & #filter-error { width: auto; max-width: 60%; padding: 0 1; color: $text-error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="filter.cancel", tooltip="Close, with the filter as it was before"),
    ]

    @dataclass
    class Typed(Message):
        """A valid filter was typed."""

        filter: Filter

    @dataclass
    class Closed(Message):
        """The line is done; `filter` is the result."""

        filter: Filter

    def __init__(self, current: Filter) -> None:
        super().__init__()
        self._before = self._filter = current
        self.entry = Entry(current.text, placeholder="loss !val   a|b   /regex/")

    def compose(self) -> ComposeResult:
        """The entry and the error."""
        yield PlainText("filter", id="filter-mark")
        yield self.entry
        yield PlainText("", id="filter-error")

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        try:
            self._filter = parse(event.value)
        except FilterError as error:
            self.query_one("#filter-error", PlainText).show(str(error))
            return
        self.query_one("#filter-error", PlainText).show("")
        self.post_message(self.Typed(self._filter))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self.post_message(self.Closed(parse(event.value)))
        except FilterError as error:
            self.query_one("#filter-error", PlainText).show(str(error))

    def action_cancel(self) -> None:
        """Close, with the filter as it was before."""
        self.post_message(self.Closed(self._before))
