"""The two lists of the lab: all experiments, and the results of the selected one."""

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
from epochtop.tui.cells.plain import plain, set_subtitle
from epochtop.tui.cells.rows import cut
from epochtop.tui.lab.saved_results import ResultIndex, SavedResult
from epochtop.tui.screens.status import MARKS

NAME = 13
"""Cells of the longest experiment name."""
NARROW = 30
"""Cells below which a list shows names only."""
AGE = 6
"""Cells of an age."""


class LineTable(DataTable[Text]):
    """Lines of text with a cursor. `lines` returns them by key, at most as wide as its argument."""

    DEFAULT_CSS = """
    LineTable { height: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; background: $background; overflow-x: hidden; }
    """

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, cursor_type="row", show_header=False, cell_padding=0)
        self._lines: dict[str, str] = {}
        self._cells = 0

    def on_resize(self) -> None:
        """Fit the lines to the new width."""
        self.fill()

    def fill(self) -> None:
        """Show the current lines; only those that differ are replaced."""
        cells = max(10, self.size.width - 1)
        lines = self.lines(cells)
        if cells != self._cells or list(lines) != list(self._lines):
            self._rebuild(lines, cells)
        else:
            for key, line in lines.items():
                if line != self._lines[key]:
                    self.update_cell(key, "line", plain(line))
        self._lines, self._cells = lines, cells

    def _rebuild(self, lines: dict[str, str], cells: int) -> None:
        chosen = self.chosen
        self.clear(columns=True)
        self.add_column("", width=cells, key="line")
        for key, line in lines.items():
            self.add_row(plain(line), key=key)
        if chosen in lines:
            self.move_cursor(row=list(lines).index(chosen))

    def lines(self, cells: int) -> dict[str, str]:
        """The lines by key, at most `cells` wide."""
        raise NotImplementedError

    @property
    def chosen(self) -> str:
        """The key of the selected line; empty if there is none."""
        keys = list(self._lines)
        return keys[self.cursor_row] if 0 <= self.cursor_row < len(keys) else ""

    def choose(self, key: str) -> None:
        """Select a line, if it exists."""
        if key in self._lines and key != self.chosen:
            self.move_cursor(row=list(self._lines).index(key))


class ExperimentList(LineTable):
    """All experiments: the state of the newest result, the name and the question."""

    BORDER_TITLE = "Experiments"
    BINDING_GROUP_TITLE = "Experiments"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "select_cursor", "measure", id="experiments.measure", tooltip="Run this experiment", show=False
        ),
    ]

    @dataclass
    class Moved(Message):
        """Another experiment is selected."""

        name: str

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id)
        self._newest: dict[str, SavedResult] = {}
        self._reported = ""
        """The experiment of the last message."""

    def show(self, results: Sequence[SavedResult]) -> None:
        """Mark the experiments with the states of their newest results."""
        self._newest = {result.experiment: result for result in reversed(results)}
        self.fill()

    def lines(self, cells: int) -> dict[str, str]:
        """`✓ reads  The cost of reading the loss`."""
        return {experiment.name: cut(self._line(experiment, cells), cells) for experiment in experiments()}

    def _line(self, experiment: Experiment, cells: int) -> str:
        newest = self._newest.get(experiment.name)
        mark = MARKS[newest.state] if newest else " "
        if cells < NARROW:
            return f"{mark} {experiment.name}"
        return f"{mark} {experiment.name:<{NAME}} {experiment.title}"

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Report a selection once."""
        event.stop()
        if self.chosen and self.chosen != self._reported:
            self._reported = self.chosen
            self.post_message(self.Moved(self.chosen))


class ResultList(LineTable):
    """Results of one experiment, the newest first. With `live` false nothing is read, and tests call :meth:`show`."""

    BORDER_TITLE = "Results"
    BINDING_GROUP_TITLE = "Results"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "open", id="results.open", tooltip="Open this result; a live one continues"),
        Binding(
            "o",
            "compare",
            "compare",
            id="results.compare",
            tooltip="Compare with the open result, or the open one with the newest other",
        ),
        Binding("delete,d", "delete", "delete", id="results.delete", tooltip="Delete this result, after a question"),
    ]

    @dataclass
    class Listed(Message):
        """The results of all experiments."""

        results: list[SavedResult]

        def can_replace(self, message: Message) -> bool:
            """A level: only the newest counts."""
            return isinstance(message, ResultList.Listed)

    @dataclass
    class Compare(Message):
        """Compare a result with the open one."""

        run_id: str

    @dataclass
    class Delete(Message):
        """Delete a result."""

        run_id: str

    def __init__(self, home: Path, *, live: bool, now: Callable[[], float] = time.time, id: str) -> None:  # noqa: A002
        super().__init__(id)
        self._live, self._now = live, now
        self._index, self._reading = ResultIndex(home), threading.Lock()
        self._results: list[SavedResult] = []
        self._shown = self._against = ""

    def look(self) -> None:
        """Read the folder in a thread: the disk may be slow."""
        if self._live and self._reading.acquire(blocking=False):
            threading.Thread(target=self._read, name="list results", daemon=True).start()

    def _read(self) -> None:
        try:
            self.post_message(self.Listed(self._index.list()))
        finally:
            self._reading.release()

    def show(self, results: Sequence[SavedResult], shown: str, against: str = "") -> None:
        """Show the results of one experiment; `shown` is the id of the open one, `against` of the one compared with it."""
        self._results, self._shown, self._against = list(results), shown, against
        self.fill()
        set_subtitle(self, "" if results else "none yet")

    def lines(self, cells: int) -> dict[str, str]:
        """`✓ reads-7f3a  finished  2 min ◂`."""
        return {result.id: cut(self._line(result, cells), cells) for result in self._results}

    def _line(self, result: SavedResult, cells: int) -> str:
        mark, old = MARKS[result.state], format_age(self._now() - result.created)
        position = "◂" if result.id == self._shown else "▪" if result.id == self._against else ""
        if cells < NARROW:
            return f"{mark} {result.id.removeprefix(f'{result.experiment}-'):<5} {old:>{AGE}} {position}"
        state = "quick" if result.quick and result.state == "finished" else result.state
        return f"{mark} {result.id:<{NAME + 5}} {state:<8} {old:>{AGE}} {position}"

    def action_compare(self) -> None:
        """Compare the selected result."""
        if self.chosen:
            self.post_message(self.Compare(self.chosen))

    def action_delete(self) -> None:
        """Delete the selected result."""
        if self.chosen:
            self.post_message(self.Delete(self.chosen))
