"""A dialog that picks one of many names by typing parts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from epochtop.tui.cells.plain import PlainText, plain
from epochtop.tui.forms.text_entry import Entry

MOST = 300
"""Most names in the list; typing narrows it."""
COLUMNS = 64
"""Columns of a name and its value, next to the scroll bar."""


def matching(names: Sequence[str], text: str) -> list[str]:
    """The names that contain every word of `text`, in any case and order."""
    words = text.lower().split()
    return [name for name in names if all(word in name.lower() for word in words)]


class Picker(ModalScreen[str | None]):
    """Names to choose from, each with a value. The answer is a name, or None if canceled."""

    DEFAULT_CSS = """
    Picker {
        align: center middle;
        & > Vertical {
            width: 72;
            max-width: 95%;
            height: auto;
            max-height: 90%;
            border: round $border;
            background: $surface;
            padding: 1 2;
        }
        & OptionList { height: auto; max-height: 16; border: none; background: $surface; padding: 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="picker.cancel"),
        Binding("down", "move(1)", "down", id="picker.down", show=False, priority=True),
        Binding("up", "move(-1)", "up", id="picker.up", show=False, priority=True),
    ]

    def __init__(self, text: str, values: Mapping[str, str], current: str = "") -> None:
        """`values` has a short text per name, such as the last value of a series."""
        super().__init__()
        self._text, self._values, self._current = text, values, current

    def compose(self) -> ComposeResult:
        """The entry, and the names below it."""
        with Vertical():
            yield PlainText(self._text)
            yield Entry("", placeholder="type to filter; arrow keys and enter choose", id="filter")
            yield OptionList(markup=False)

    def on_mount(self) -> None:
        """Show all names."""
        self._list("")

    def _list(self, text: str) -> None:
        names = matching(list(self._values), text)[:MOST]
        width = max((len(self._values[name]) for name in names), default=0)
        room = COLUMNS - 1 - width
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(Option(plain(_row(name, self._values[name], room, width)), id=name) for name in names)
        options.highlighted = (
            names.index(self._current) if self._current in names and not text else 0 if names else None
        )

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._list(event.value)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        options = self.query_one(OptionList)
        if options.highlighted is not None:
            self.dismiss(options.get_option_at_index(options.highlighted).id)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def action_move(self, rows: int) -> None:
        """Move through the names while the entry has the focus."""
        options = self.query_one(OptionList)
        (options.action_cursor_down if rows > 0 else options.action_cursor_up)()

    def action_cancel(self) -> None:
        """Close without a choice."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """Keep the focus in the entry."""
        if not isinstance(event.widget, OptionList):
            self.query_one(Entry).focus()


def _row(name: str, value: str, room: int, width: int) -> str:
    shown = name if len(name) <= room else f"{name[: room - 9]}…{name[-8:]}"
    return f"{shown.ljust(room)} {value.rjust(width)}"
