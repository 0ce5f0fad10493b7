"""Dialogs with a list of names, narrowed by typing parts of them: their common frame, and one that picks a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from epochtop.tui.cells.plain import PlainText, plain
from epochtop.tui.cells.rows import shortened
from epochtop.tui.forms.text_entry import Entry

MOST = 300
"""Most names in the list; typing narrows it."""
COLUMNS = 64
"""Columns of a row, next to the scroll bar."""

Answer = TypeVar("Answer")


def matching(names: Sequence[str], text: str) -> list[str]:
    """The names that contain every word of `text`, in any case and order."""
    words = text.lower().split()
    return [name for name in names if all(word in name.lower() for word in words)]


class NameList(ModalScreen[Answer]):
    """Abstract: an entry, and the names that contain what was typed. A subclass says how a name looks and what enter does."""

    DEFAULT_CSS = """
    NameList {
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
        Binding("down", "move(1)", "down", id="names.down", show=False, priority=True),
        Binding("up", "move(-1)", "up", id="names.up", show=False, priority=True),
    ]

    def __init__(self, text: str, names: Sequence[str], hint: str = "type to filter") -> None:
        super().__init__()
        self._text, self.names, self._hint = text, list(names), hint

    def rows(self, names: Sequence[str]) -> list[str]:
        """How these names look in the list."""
        raise NotImplementedError

    def choose(self, name: str) -> None:
        """React to enter or a click on a name."""
        raise NotImplementedError

    def first(self, names: Sequence[str]) -> str | None:
        """The name that is highlighted at first."""
        return names[0] if names else None

    def compose(self) -> ComposeResult:
        """The entry, and the names below it."""
        with Vertical():
            yield PlainText(self._text)
            yield Entry("", placeholder=self._hint, id="filter")
            yield OptionList(markup=False)

    def on_mount(self) -> None:
        """Show all names."""
        self.show_matches()

    @property
    def options(self) -> OptionList:
        """The list."""
        return self.query_one(OptionList)

    def show_matches(self) -> None:
        """Show the names that contain what was typed."""
        names = matching(self.names, self.query_one(Entry).value)[:MOST]
        first = self.first(names)
        self.options.clear_options()
        self.options.add_options(Option(plain(row), id=name) for name, row in zip(names, self.rows(names), strict=True))
        self.options.highlighted = names.index(first) if first is not None else None

    @on(Input.Changed)
    def _typed(self) -> None:
        self.show_matches()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self.options.highlighted is not None:
            self._choose(self.options.get_option_at_index(self.options.highlighted).id)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self._choose(event.option.id)

    def _choose(self, name: str | None) -> None:
        if name is not None:
            self.choose(name)

    def action_move(self, rows: int) -> None:
        """Move through the names while the entry has the focus."""
        (self.options.action_cursor_down if rows > 0 else self.options.action_cursor_up)()

    def on_click(self, event: events.Click) -> None:
        """Keep the focus in the entry."""
        if not isinstance(event.widget, OptionList):
            self.query_one(Entry).focus()


class Picker(NameList[str | None]):
    """Names to choose from, each with a value. The answer is a name, or None if canceled."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel", id="picker.cancel")]

    def __init__(self, text: str, values: Mapping[str, str], current: str = "") -> None:
        """`values` has a short text per name, such as the last value of a series."""
        super().__init__(text, list(values), "type to filter; arrow keys and enter choose")
        self._values, self._current = values, current

    def rows(self, names: Sequence[str]) -> list[str]:
        """Names at the left, values at the right."""
        width = max((len(self._values[name]) for name in names), default=0)
        room = COLUMNS - 1 - width
        return [f"{shortened(name, room).ljust(room)} {self._values[name].rjust(width)}" for name in names]

    def first(self, names: Sequence[str]) -> str | None:
        """The current name, until something is typed."""
        is_whole = len(names) == min(MOST, len(self.names))
        return self._current if self._current in names and is_whole else super().first(names)

    def choose(self, name: str) -> None:
        """Answer with a name."""
        self.dismiss(name)

    def action_cancel(self) -> None:
        """Close without a choice."""
        self.dismiss(None)
