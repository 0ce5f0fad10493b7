"""The page with the table of all runs: keys and clicks change the layout, a thread reads the runs.

Opening, overlaying and forgetting runs is left to the app, which gets messages of the list of runs.
"""

from __future__ import annotations

import threading
import time
from asyncio import to_thread
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input

from epochtop.engine.protocol.quantities import plural
from epochtop.engine.runs.families import lower_is_better
from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.cells.key_footer import KeyFooter
from epochtop.tui.cells.plain import PlainText, set_subtitle, set_title
from epochtop.tui.cells.table import CellTable
from epochtop.tui.forms.dialogs import Question
from epochtop.tui.runs_table import layout as layouts
from epochtop.tui.runs_table.changes import delete_runs, delete_text, edit_run
from epochtop.tui.runs_table.columns import all_keys, column_of, default_keys, grouping_key
from epochtop.tui.runs_table.filter.entry import FilteredTable, FilterEntry
from epochtop.tui.runs_table.filter.limits import Limit, limit_of, limited
from epochtop.tui.runs_table.keys import KEYS
from epochtop.tui.runs_table.lines import (
    FIXED,
    HINT,
    NO_MATCH,
    NO_RUNS,
    cells_of,
    section_start,
    table_columns,
    title_of,
)
from epochtop.tui.runs_table.model import Line, TableModel, line_id, runs_of
from epochtop.tui.runs_table.source import TableSource
from epochtop.tui.screens.run_list import RunList


class RunsTablePage(ModalScreen[None]):
    """The table of all runs. With `live` false no thread reads, and tests call :meth:`show_runs`."""

    DEFAULT_CSS = """
    RunsTablePage {
        background: $background;
        & > CellTable { border: round $border; border-title-color: $text; border-subtitle-color: $text-muted; }
        & > FilterEntry { padding: 0 1; }
        & > #filter-line { height: 1; padding: 0 1; color: $text-muted; }
        & > #filter-line.-error { color: $text-error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]

    @dataclass
    class Listed(Message):
        """The runs of the home folder."""

        runs: list[RunDetails]

        def can_replace(self, message: Message) -> bool:
            """A level: only the newest counts."""
            return isinstance(message, RunsTablePage.Listed)

    def __init__(
        self,
        home: Path,
        source: TableSource,
        draw: Callable[[Sequence[tuple[str, Sequence[RunDetails]]], str], None],
        *,
        live: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`draw` puts curves on one chart: single runs, or groups under their names."""
        super().__init__()
        self._home, self._source, self._draw, self._live, self._now = home, source, draw, live, now
        self._stop = threading.Event()
        self._layout, self._problem = layouts.load(home)
        self._show_hidden = False
        self._selected: dict[str, None] = {}
        self._table = FilteredTable(fixed=FIXED, id="runs-table")
        self._entry = FilterEntry(self._layout.filter, id="runs-filter")
        self.model = TableModel([], self._layout, now())
        """What the table shows."""

    # --- building and reading ----------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """The table, the filter and the keys."""
        yield self._table
        yield self._entry
        yield PlainText(id="filter-line")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show what is known and start to read."""
        self._table.focus()
        self.show_runs(self._source.runs)
        if self._problem:
            self.notify(self._problem, severity="warning")
        if self._live:
            target = self._source.follow
            threading.Thread(target=target, args=(self._report, self._stop), name="table of runs", daemon=True).start()

    def _report(self, runs: list[RunDetails]) -> None:
        try:
            self.post_message(self.Listed(runs))
        except RuntimeError:  # the app's event loop is closed
            self._stop.set()

    def on_unmount(self) -> None:
        """Stop reading."""
        self._stop.set()

    @on(events.Resize)
    def _resized(self) -> None:
        self._fill()

    def on_runs_table_page_listed(self, event: Listed) -> None:
        """Show the runs that were read."""
        self.show_runs(event.runs)

    def show_runs(self, runs: Sequence[RunDetails]) -> None:
        """Show these runs; the cursor stays on its run."""
        known = {run.id for run in runs}
        self._selected = {run_id: None for run_id in self._selected if run_id in known}
        self._rebuild(runs)

    def _rebuild(self, runs: Sequence[RunDetails] | None = None) -> None:
        runs = self.model.runs if runs is None else runs
        lines, cursor = self.model.lines, self._table.cursor
        chosen = line_id(lines[cursor]) if cursor < len(lines) else ""
        self.model = TableModel(runs, self._layout, self._now(), show_hidden=self._show_hidden, index=self.model.index)
        self._entry.names = self.model.names
        self._fill()
        place = next((index for index, line in enumerate(self.model.lines) if line_id(line) == chosen), None)
        if place is not None:
            self._table.move_to(place)

    def _fill(self) -> None:
        model = self.model
        columns = table_columns(model, self.app.size.width)
        hidden = frozenset(self._layout.hidden)
        self._table.empty_text = NO_MATCH if model.runs else NO_RUNS
        self._table.sorted_by = (self._layout.sort, "↓" if self._layout.descending else "↑")
        self._table.show_rows(
            columns, len(model.lines), lambda index: cells_of(model, model.lines[index], self._selected, hidden)
        )
        self._explain()

    def _explain(self) -> None:
        set_title(self._table, title_of(self.model, len(self._selected)))
        set_subtitle(self._table, self._note())
        line, problem = self.query_one("#filter-line", PlainText), self.model.problem
        line.set_class(bool(problem), "-error")
        words = self._entry.offered() if self._entry.has_focus else []
        offered = f"tab: {'  '.join(words)}" if words else ""
        matches = f"{plural(len(self.model.matches), 'run')} match" if self._layout.filter.strip() else ""
        text = " · ".join(part for part in (problem or matches, offered) if part)
        line.show(text or HINT, layout=False)

    def _note(self) -> str:
        if self._source.problem:
            return self._source.problem
        runs = self._line_runs()
        return (runs[0].labels.notes or runs[0].summary.note) if len(runs) == 1 else ""

    # --- the runs that a key means ---------------------------------------------------------------------------------

    def _line_runs(self) -> tuple[RunDetails, ...]:
        """The runs of the line at the cursor."""
        lines, cursor = self.model.lines, self._table.cursor
        return runs_of(lines[cursor]) if cursor < len(lines) else ()

    def chosen(self) -> list[RunDetails]:
        """The selected runs in the order of their selection, or those of the line at the cursor."""
        by_id = {run.id: run for run in self.model.runs}
        return [by_id[run_id] for run_id in self._selected] or list(self._line_runs())

    def _mark(self, runs: Iterable[RunDetails]) -> None:
        """Select runs, or deselect them if all of them are selected."""
        ids = [run.id for run in runs]
        if all(run_id in self._selected for run_id in ids):
            for run_id in ids:
                del self._selected[run_id]
        else:
            self._selected |= dict.fromkeys(ids)
        self._table.redraw()
        self._explain()

    def action_mark(self) -> None:
        """Select the line at the cursor and go to the next one."""
        self._mark(self._line_runs())
        self._table.action_move(1)

    def action_mark_all(self) -> None:
        """Select all runs that are shown, or none."""
        self._mark(self.model.matches)

    @on(CellTable.MarkClicked)
    def _mark_clicked(self) -> None:
        self._mark(self._line_runs())

    @on(CellTable.Moved)
    def _moved(self) -> None:
        self._explain()

    # --- layout ----------------------------------------------------------------------------------------------------

    def _arrange(self, **changes: object) -> None:
        """Change the layout and remember it."""
        self._layout = msgspec.structs.replace(self._layout, **changes)
        self._rebuild()
        self._remember()

    def _remember(self) -> None:
        if problem := layouts.save(self._home, self._layout):
            self.notify(problem, severity="warning")

    def action_column(self, columns: int) -> None:
        """Move the column cursor."""
        self._table.move_column(columns)

    def action_sort(self) -> None:
        """Sort by the column at the cursor; the second time, reverse the order."""
        self._sort_by(self._table.column_key)

    @on(CellTable.HeadingClicked)
    def _heading_clicked(self, event: CellTable.HeadingClicked) -> None:
        self._sort_by(event.key or "state")

    def _sort_by(self, key: str) -> None:
        again = key == self._layout.sort
        self._arrange(sort=key, descending=again and not self._layout.descending)

    def action_best(self) -> None:
        """Sort by the best value of a metric, best first; again by the next metric."""
        metrics = self.model.best_keys(self._table.column_key)
        if not metrics:
            return
        place = metrics.index(self._layout.sort) + 1 if self._layout.sort in metrics else 0
        key = metrics[place % len(metrics)]
        self._arrange(sort=key, descending=not lower_is_better(key.partition(":")[2]))
        self._table.move_to(0)

    def action_section(self, sections: int) -> None:
        """Put the column cursor on the first column of the next kind: facts, metrics, settings."""
        kinds = ["fact"] * FIXED + ["fact", *(column.kind for column in self.model.columns)]
        start = section_start(kinds, self._table.column, sections)
        if start is not None:
            self._table.move_column(start - self._table.column)

    def action_limit(self, operator: Limit) -> None:
        """Filter by the column at the cursor: without its lowest or highest value, or only the value at the cursor."""
        column, runs = column_of(self._table.column_key), self._line_runs()
        if column is None or not runs:
            return
        model = self.model
        value = column.value(runs[0], model.now) if operator == "=" else None
        if operator != "=" and (value := limit_of(model.matches, column, operator, model.now)) is None:
            self.notify(f"{column.label} has no other number to leave out")
            return
        self._entry.value = limited(self._layout.filter, model.names, column, operator, value)
        self._arrange(filter=self._entry.value)

    def action_group(self) -> None:
        """Group by the column at the cursor, or ungroup."""
        key = grouping_key(self.model.runs, self._table.column_key)
        self._arrange(group="" if self._layout.group else key)

    @work
    async def action_columns(self) -> None:
        """Choose the columns."""
        from epochtop.tui.runs_table.column_choice import ColumnChoice

        runs, shown = self.model.runs, [column.key for column in self.model.columns]
        if not runs:
            return
        default = default_keys(runs)
        chosen = await self.app.push_screen_wait(ColumnChoice(all_keys(runs), shown, default))
        if chosen is not None:
            self._arrange(columns=None if list(chosen) == default else chosen)

    def action_hide(self) -> None:
        """Hide the chosen runs, or show them again if all of them are hidden."""
        ids, hidden = [run.id for run in self.chosen()], dict.fromkeys(self._layout.hidden)
        if all(run_id in hidden for run_id in ids):
            remaining = tuple(run_id for run_id in hidden if run_id not in ids)
        else:
            remaining = tuple(hidden | dict.fromkeys(ids))
            self._selected = {}
        self._arrange(hidden=remaining)

    def action_show_hidden(self) -> None:
        """Show hidden runs, or leave them out again."""
        self._show_hidden = not self._show_hidden
        self._rebuild()

    async def action_filter(self) -> None:
        """Edit the filter."""
        await self._table.hand_over(self._entry)
        self._explain()

    @on(Input.Changed)
    def _filter_typed(self, event: Input.Changed) -> None:
        if event.value != self._layout.filter:
            self._layout = msgspec.structs.replace(self._layout, filter=event.value)
            self._rebuild()

    @on(Input.Submitted)
    @on(FilterEntry.Left)
    def _filter_done(self) -> None:
        self._table.focus()
        self._remember()

    # --- what happens to runs ----------------------------------------------------------------------------------------

    @on(CellTable.RowClicked)
    def _row_clicked(self, event: CellTable.RowClicked) -> None:
        if event.twice:
            self.action_open()

    def action_open(self) -> None:
        """Open the run at the cursor; of a group, draw the mean of its runs."""
        if self.model.group_column is not None:
            self._show(self._lines_at_cursor())
        elif runs := self._line_runs():
            self.action_leave()
            self.app.post_message(RunList.Chosen("open", runs[0].id))

    def action_draw(self) -> None:
        """Draw the chosen runs or groups on one chart."""
        lines = self._lines_at_cursor()
        if self._selected and self.model.group_column is not None:
            lines = [line for line in self.model.lines if any(run.id in self._selected for run in runs_of(line))]
        elif self._selected:
            lines = self.chosen()
        self._show(lines)

    def _lines_at_cursor(self) -> Sequence[Line]:
        return self.model.lines[self._table.cursor :][:1]

    def _show(self, lines: Sequence[Line]) -> None:
        """Leave the table, and draw a curve per line."""
        curves = [(self.model.curve_name(line), runs_of(line)) for line in lines]
        if curves:
            self.action_leave()
            self._draw(curves, self._layout.sort)

    def action_compare(self) -> None:
        """Compare the settings of the chosen runs."""
        from epochtop.tui.runs_table.comparison import ComparisonScreen

        runs = self.chosen()
        if len(runs) < 2:
            self.notify("select two or more runs with space, then press v")
        else:
            self.app.push_screen(ComparisonScreen(runs))

    @work
    async def action_edit(self) -> None:
        """Change name, tags and notes."""
        runs = self._line_runs()
        if len(runs) == 1 and await edit_run(self.app, self._home, runs[0]):
            self._read_again()

    @work
    async def action_delete(self) -> None:
        """Delete the chosen runs, after one question."""
        runs = self.chosen()
        if not runs:
            return
        answers = (("cancel", "Keep"), ("delete", "Delete"))
        if await self.app.push_screen_wait(Question(delete_text(self._home, runs), answers)) != "delete":
            return
        gone, problems = await to_thread(delete_runs, self._home, runs)
        for run in gone:
            self.app.post_message(RunList.Deleted(run.id))
        if problems:
            self.notify("\n".join(problems), severity="error")
        self._selected = {}
        self._read_again()

    def _read_again(self) -> None:
        threading.Thread(target=lambda: self._report(self._source.read()), name="table again", daemon=True).start()

    def action_leave(self) -> None:
        """Return to the chart."""
        self.dismiss()
