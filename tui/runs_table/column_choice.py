"""The dialog that chooses the columns of the table: a list with marks, narrowed by typing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from epochtop.tui.cells.plain import PlainText, plain
from epochtop.tui.cells.rows import shortened
from epochtop.tui.forms.picker import matching
from epochtop.tui.forms.text_entry import Entry
from epochtop.tui.runs_table.columns import column_of

MOST = 300
"""Most names in the list; typing narrows it."""
NAME_CELLS = 54


class ColumnChoice(ModalScreen[tuple[str, ...] | None]):
    """Columns to choose from. The answer is their keys, chosen ones in their old order; None if canceled."""

    DEFAULT_CSS = """
    ColumnChoice {
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
        & OptionList { height: auto; max-height: 14; border: none; background: $surface; padding: 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "accept", "done", id="columns.done"),
        Binding("down", "move(1)", "down", id="columns.down", show=False, priority=True),
        Binding("up", "move(-1)", "up", id="columns.up", show=False, priority=True),
        Binding("ctrl+r", "reset", "default columns", id="columns.reset", priority=True),
    ]

    def __init__(self, keys: Sequence[str], chosen: Sequence[str], default: Sequence[str]) -> None:
        """`keys` are all columns, `chosen` those of the table now, `default` those of a new table."""
        super().__init__()
        self._keys = list(dict.fromkeys([*chosen, *keys]))
        self._chosen, self._default = dict.fromkeys(chosen), default
        self._names = {f"{_title(key)}": key for key in self._keys}

    def compose(self) -> ComposeResult:
        """The entry, and the names below it."""
        with Vertical():
            yield PlainText("Columns (enter adds or removes, escape closes, ctrl+r restores the default):")
            yield Entry("", placeholder="type to filter", id="filter")
            yield OptionList(markup=False)

    def on_mount(self) -> None:
        """Show all names."""
        self._list("")

    @property
    def _options(self) -> OptionList:
        return self.query_one(OptionList)

    def _list(self, text: str) -> None:
        names = matching(list(self._names), text)[:MOST]
        self._options.clear_options()
        self._options.add_options(Option(self._row(name), id=self._names[name]) for name in names)
        self._options.highlighted = 0 if names else None

    def _row(self, name: str) -> str:
        mark = "▪" if self._names[name] in self._chosen else " "
        return plain(f"{mark} {shortened(name, NAME_CELLS)}").plain

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._list(event.value)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self._options.highlighted is not None:
            self._toggle(self._options.get_option_at_index(self._options.highlighted).id)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self._toggle(event.option.id)

    def _toggle(self, key: str | None) -> None:
        if key is None:
            return
        if key in self._chosen:
            del self._chosen[key]
        else:
            self._chosen[key] = None
        name = next(name for name, other in self._names.items() if other == key)
        self._options.replace_option_prompt(key, self._row(name))

    def action_move(self, rows: int) -> None:
        """Move through the names while the entry has the focus."""
        (self._options.action_cursor_down if rows > 0 else self._options.action_cursor_up)()

    def action_reset(self) -> None:
        """Choose the default columns again."""
        self._chosen = dict.fromkeys(self._default)
        self._list(self.query_one(Entry).value)

    def action_accept(self) -> None:
        """Close with the chosen columns."""
        self.dismiss(tuple(self._chosen))


def _title(key: str) -> str:
    """A column in the list: `best val/loss`, `lr (setting)`."""
    column = column_of(key)
    if column is None:
        return key
    suffix = {"config": " (setting)", "metric": " (last value)" if key.startswith("last:") else ""}.get(column.kind, "")
    return f"{column.label}{suffix}"
