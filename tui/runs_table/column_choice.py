"""The dialog that chooses the columns of the table: a list with marks, narrowed by typing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from epochtop.tui.cells.plain import plain
from epochtop.tui.cells.rows import shortened
from epochtop.tui.forms.picker import COLUMNS, NameList
from epochtop.tui.runs_table.columns import column_of

MARK_CELLS = 2


class ColumnChoice(NameList[tuple[str, ...] | None]):
    """Columns to choose from. The answer is their keys, chosen ones in their old order."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "accept", "done", id="columns.done"),
        Binding("ctrl+r", "reset", "default columns", id="columns.reset", priority=True),
    ]

    def __init__(self, keys: Sequence[str], chosen: Sequence[str], default: Sequence[str]) -> None:
        """`keys` are all columns, `chosen` those of the table now, `default` those of a new table."""
        self._keys = {_title(key): key for key in dict.fromkeys([*chosen, *keys])}
        self._chosen, self._default = dict.fromkeys(chosen), default
        text = "Columns (enter adds or removes, escape closes, ctrl+r restores the default):"
        super().__init__(text, list(self._keys))

    def rows(self, names: Sequence[str]) -> list[str]:
        """Names behind marks."""
        return [self._row(name) for name in names]

    def _row(self, name: str) -> str:
        mark = "▪" if self._keys[name] in self._chosen else " "
        return f"{mark} {shortened(name, COLUMNS - MARK_CELLS)}"

    def choose(self, name: str) -> None:
        """Add a column, or remove it."""
        key = self._keys[name]
        if key in self._chosen:
            del self._chosen[key]
        else:
            self._chosen[key] = None
        self.options.replace_option_prompt(name, plain(self._row(name)))

    def action_reset(self) -> None:
        """Choose the default columns again."""
        self._chosen = dict.fromkeys(self._default)
        self.show_matches()

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
