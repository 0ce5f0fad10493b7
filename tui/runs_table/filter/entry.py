"""The entry of the filter, with completion, and the line below it that explains errors and offers words."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from epochtop.tui.cells.table import CellTable
from epochtop.tui.forms.text_entry import Entry
from epochtop.tui.forms.type_ahead import TypeAhead
from epochtop.tui.runs_table.filter.matching import Names

OFFERED = 8
"""Words that the line below the entry shows."""


class FilteredTable(CellTable, TypeAhead):
    """The table that the filter belongs to."""


class FilterEntry(Entry):
    """A filter. Tab completes the word before the cursor, escape removes the filter, enter returns to the table."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "complete", id="filter.complete", tooltip="Complete the name or the value"),
        Binding("escape", "clear", "remove filter", id="filter.clear", tooltip="Show all runs again"),
    ]

    class Left(Message):
        """The user is done with the filter."""

    def __init__(self, value: str, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(value, placeholder="/ filters: lr>=0.001 model~res (state=finished or tag=base)", id=id)
        self.names: Names | None = None

    def offered(self) -> list[str]:
        """Words that the text could continue with."""
        return self.names.complete(self.value)[1][:OFFERED] if self.names is not None else []

    def action_complete(self) -> None:
        """Take the first word that is offered."""
        if self.names is None:
            return
        start, words = self.names.complete(self.value)
        if words:
            self.value = self.value[:start] + words[0]
            self.cursor_position = len(self.value)

    def action_clear(self) -> None:
        """Remove the filter."""
        self.value = ""
        self.post_message(self.Left())
