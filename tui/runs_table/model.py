"""What the table shows: runs filtered, grouped and sorted, as lines of cells. Never imports Textual."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import cached_property

from epochtop.engine.protocol.quantities import UNKNOWN
from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.runs_table.columns import Column, Value, column_of, default_keys, series_names
from epochtop.tui.runs_table.filter.grammar import FilterError, parse
from epochtop.tui.runs_table.filter.matching import Names, matching, problem_of, test_of
from epochtop.tui.runs_table.groups import Group, group_name, group_text, group_value, grouped
from epochtop.tui.runs_table.layout import Layout

Line = RunDetails | Group
"""A line of the table: one run, or a group of runs."""


class RunIndex:
    """What the layout does not change about some runs: names for the filter, default columns, texts of cells."""

    def __init__(self, runs: Sequence[RunDetails]) -> None:
        self.runs = runs
        self._texts: dict[tuple[str, str], str] = {}

    def describes(self, runs: Sequence[RunDetails]) -> bool:
        """Whether these are the same runs, unchanged and in the same order."""
        return len(runs) == len(self.runs) and all(map(operator.is_, runs, self.runs))

    @cached_property
    def names(self) -> Names:
        """Names for the filter."""
        return Names(self.runs)

    @cached_property
    def default_keys(self) -> tuple[str, ...]:
        """Keys of the columns of a new table."""
        return tuple(default_keys(self.runs)) if self.runs else ("time", "age")

    def text(self, run: RunDetails, column: Column, now: float) -> str:
        """A cell as text."""
        if column.key == "age":
            return column.text(run, now)
        place = (run.path, column.key)
        text = self._texts.get(place)
        if text is None:
            text = self._texts[place] = column.text(run, now)
        return text


class TableModel:
    """The lines of the table for some runs and a layout. It does not change; make a new one for new runs."""

    def __init__(
        self,
        runs: Sequence[RunDetails],
        layout: Layout,
        now: float,
        *,
        show_hidden: bool = False,
        index: RunIndex | None = None,
    ) -> None:
        """`index` is that of an older model; it is used again if it describes these runs."""
        self.runs, self.layout, self.now = runs, layout, now
        self.index = index if index is not None and index.describes(runs) else RunIndex(runs)
        hidden = set() if show_hidden else set(layout.hidden)
        visible = [run for run in runs if run.id not in hidden]
        self.hidden = len(runs) - len(visible)
        """Number of runs that the user has hidden."""
        self.problem = ""
        """What is wrong with the filter; then it lets all runs pass."""
        self.matches = self._filtered(visible)
        """The runs that pass the filter, in no particular order."""
        self.group_column = column_of(layout.group) if layout.group else None
        self.lines: list[Line] = self._sorted(self._lines())
        """Runs or groups, in order."""
        self._group_texts: dict[tuple[int, str], str] = {}
        """Texts of cells of groups, by line and column."""

    @property
    def names(self) -> Names:
        """Names for the filter."""
        return self.index.names

    @cached_property
    def columns(self) -> list[Column]:
        """The columns after state and run."""
        keys = self.layout.columns if self.layout.columns is not None else self.index.default_keys
        return [column for key in keys if (column := column_of(key)) is not None]

    def best_keys(self, key: str) -> list[str]:
        """The metrics to sort by, as `best:` columns: that of the column `key`, else those that are shown, else all."""
        kind, _, name = key.partition(":")
        if kind in ("last", "min", "max", "best") and f"best:{name}" != self.layout.sort:
            return [f"best:{name}"]
        shown = [column.key for column in self.columns if column.key.startswith("best:")]
        return shown or [f"best:{name}" for name in series_names(self.runs)]

    def _filtered(self, runs: list[RunDetails]) -> list[RunDetails]:
        text = self.layout.filter
        if not text.strip():
            return runs
        try:
            return matching(runs, test_of(parse(text), self.names, self.now))
        except FilterError as error:
            self.problem = problem_of(error, text)
            return runs

    def _lines(self) -> Sequence[Line]:
        if self.group_column is None:
            return self.matches
        return grouped(self.matches, self.group_column, self.now)

    def _sorted(self, lines: Sequence[Line]) -> list[Line]:
        """Lines in the order of a column: numbers, then texts, then lines without a value, whatever the direction."""
        column = column_of(self.layout.sort)
        if column is None:
            return list(lines)
        value = self._sort_value(column)
        numbers, texts, rest = list[tuple[float, Line]](), list[tuple[str, Line]](), list[Line]()
        for line in lines:
            cell = value(line)
            if isinstance(cell, str):
                texts.append((cell.lower(), line))
            elif cell is None or math.isnan(cell):
                rest.append(line)
            else:
                numbers.append((float(cell), line))
        down = self.layout.descending
        ordered: list[Line] = [line for _, line in sorted(numbers, key=lambda pair: pair[0], reverse=down)]
        ordered += [line for _, line in sorted(texts, key=lambda pair: pair[0], reverse=down)]
        return ordered + rest

    def _sort_value(self, column: Column) -> Callable[[Line], Value]:
        now = self.now
        if self.group_column is None:
            return lambda line: column.value(line, now) if isinstance(line, RunDetails) else None
        if column.key == self.group_column.key:
            return lambda line: line.value if isinstance(line, Group) else None
        return lambda line: group_value(line, column, now) if isinstance(line, Group) else None

    # --- cells -------------------------------------------------------------------------------------------------

    def name(self, line: Line) -> str:
        """The name of a run or of a group."""
        if isinstance(line, Group):
            return group_name(line, self.group_column) if self.group_column is not None else ""
        return line.name

    def curve_name(self, line: Line) -> str:
        """The name of a group in a chart: `lr=0.1`; empty for a run."""
        if not isinstance(line, Group) or self.group_column is None:
            return ""
        value = self.group_column.show(line.value) if line.value is not None else UNKNOWN
        return f"{self.group_column.label}={value}"

    def text(self, line: Line, column: Column) -> str:
        """A cell as text."""
        if not isinstance(line, Group):
            return self.index.text(line, column, self.now)
        place = (id(line), column.key)
        if place not in self._group_texts:
            self._group_texts[place] = group_text(line, column, self.now)
        return self._group_texts[place]


def runs_of(line: Line) -> tuple[RunDetails, ...]:
    """The runs of a line."""
    return line.runs if isinstance(line, Group) else (line,)


def line_id(line: Line) -> str:
    """What identifies a line when the table is made anew."""
    return f"group:{line.value!r}" if isinstance(line, Group) else line.id
