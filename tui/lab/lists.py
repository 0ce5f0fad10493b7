"""The two lists of the lab: all experiments, and what is kept of the one under the cursor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable

from epochtop.engine.lab.catalog import experiments
from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.quantities import format_age
from epochtop.tui.cells.rows import cut
from epochtop.tui.lab.kept import Keeping, Kept
from epochtop.tui.screens.status import MARKS

NAME = 13
"""Cells of the longest name of an experiment."""
NARROW = 30
"""Cells below which a list has no room for more than names."""
AGE = 6


class _Table(DataTable[Text]):
    """Lines of text; a cursor over them. The width decides what a line says."""

    DEFAULT_CSS = """
    _Table { height: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; background: $background; overflow-x: hidden; }
    """

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, cursor_type="row", show_header=False, cell_padding=0)
        self._lines: dict[str, str] = {}
        self._cells = 0

    def on_resize(self) -> None:
        """Another width, other lines."""
        self.fill()

    def fill(self) -> None:
        """Show the lines of now; only those that differ are exchanged."""
        cells = max(10, self.size.width - 1)
        lines = self.lines(cells)
        if cells != self._cells or list(lines) != list(self._lines):
            self._rebuild(lines, cells)
        else:
            for key, line in lines.items():
                if line != self._lines[key]:
                    self.update_cell(key, "line", Text(line))
        self._lines, self._cells = lines, cells

    def _rebuild(self, lines: dict[str, str], cells: int) -> None:
        chosen = self.chosen
        self.clear(columns=True)
        self.add_column("", width=cells, key="line")
        for key, line in lines.items():
            self.add_row(Text(line), key=key)
        if chosen in lines:
            self.move_cursor(row=list(lines).index(chosen))

    def lines(self, cells: int) -> dict[str, str]:
        """The lines, each with its key, at most so many cells wide."""
        raise NotImplementedError

    @property
    def chosen(self) -> str:
        """The key of the line under the cursor; empty when there is none."""
        keys = list(self._lines)
        return keys[self.cursor_row] if 0 <= self.cursor_row < len(keys) else ""

    def choose(self, key: str) -> None:
        """Put the cursor on a line, if it is there."""
        if key in self._lines and key != self.chosen:
            self.move_cursor(row=list(self._lines).index(key))


class ExperimentList(_Table):
    """Name and question of each, and how the newest result of it ended."""

    BORDER_TITLE = "Experiments"
    BINDING_GROUP_TITLE = "Experiments"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "select_cursor", "measure", id="experiments.measure", tooltip="Measure this experiment", show=False
        ),
    ]

    @dataclass
    class Moved(Message):
        """Another experiment is under the cursor."""

        name: str

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id)
        self._newest: dict[str, Kept] = {}
        self._told = ""

    def show(self, kept: Sequence[Kept]) -> None:
        """Mark each experiment with its newest result."""
        self._newest = {one.experiment: one for one in reversed(kept)}
        self.fill()

    def lines(self, cells: int) -> dict[str, str]:
        """`✓ reads  What reading the loss costs`."""
        return {each.name: cut(self._line(each, cells), cells) for each in experiments()}

    def _line(self, each: Experiment, cells: int) -> str:
        newest = self._newest.get(each.name)
        mark = MARKS[newest.state] if newest else " "
        if cells < NARROW:
            return f"{mark} {each.name}"
        return f"{mark} {each.name:<{NAME}} {each.title}"

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Tell it once."""
        event.stop()
        if self.chosen and self.chosen != self._told:
            self._told = self.chosen
            self.post_message(self.Moved(self.chosen))


class KeptList(_Table):
    """Results of one experiment, the newest first. With `live` false nothing is read and :meth:`show` is called by hand."""

    BORDER_TITLE = "Results"
    BINDING_GROUP_TITLE = "Results"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "open", id="kept.open", tooltip="Show this result; a live one keeps going"),
        Binding(
            "o",
            "compare",
            "compare",
            id="kept.compare",
            tooltip="Compare this result with the shown one, or the shown one with the newest other",
        ),
        Binding("delete,d", "delete", "delete", id="kept.delete", tooltip="Delete this result, after a question"),
    ]

    @dataclass
    class Listed(Message):
        """What is kept now, of all experiments."""

        kept: list[Kept]

        def can_replace(self, message: Message) -> bool:
            """A level: only the newest counts."""
            return isinstance(message, KeptList.Listed)

    @dataclass
    class CompareWanted(Message):
        """A result is to be held against the shown one."""

        run_id: str

    @dataclass
    class Unwanted(Message):
        """A result is to be deleted."""

        run_id: str

    def __init__(self, home: Path, *, live: bool, now: Callable[[], float] = time.time, id: str) -> None:  # noqa: A002
        super().__init__(id)
        self._live, self._now = live, now
        self._keeping, self._reading = Keeping(home), threading.Lock()
        self._kept: list[Kept] = []
        self._shown = self._against = ""

    def look(self) -> None:
        """Read the folder, in a thread: it may lie on a slow disk."""
        if self._live and self._reading.acquire(blocking=False):
            threading.Thread(target=self._read, name="list results", daemon=True).start()

    def _read(self) -> None:
        try:
            self.post_message(self.Listed(self._keeping.list()))
        finally:
            self._reading.release()

    def show(self, kept: Sequence[Kept], shown: str, against: str = "") -> None:
        """Show these, all of one experiment; `shown` is the id of the one that is open, `against` of one it is compared with."""
        self._kept, self._shown, self._against = list(kept), shown, against
        self.fill()
        subtitle = "" if kept else "none yet"
        if self.border_subtitle != subtitle:
            self.border_subtitle = subtitle

    def lines(self, cells: int) -> dict[str, str]:
        """`✓ reads-7f3a  finished  2 min ◂`."""
        return {each.id: cut(self._line(each, cells), cells) for each in self._kept}

    def _line(self, each: Kept, cells: int) -> str:
        mark, old = MARKS[each.state], format_age(self._now() - each.created)
        open_ = "◂" if each.id == self._shown else "▪" if each.id == self._against else ""
        if cells < NARROW:
            return f"{mark} {each.id.removeprefix(f'{each.experiment}-'):<5} {old:>{AGE}} {open_}"
        how = "quick" if each.quick and each.state == "finished" else each.state
        return f"{mark} {each.id:<{NAME + 5}} {how:<8} {old:>{AGE}} {open_}"

    def action_compare(self) -> None:
        """Ask for it to be compared."""
        if self.chosen:
            self.post_message(self.CompareWanted(self.chosen))

    def action_delete(self) -> None:
        """Ask for it to be deleted."""
        if self.chosen:
            self.post_message(self.Unwanted(self.chosen))
