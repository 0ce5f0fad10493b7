"""The lines of the table as cells with roles, and the widths of its columns. Never imports a widget."""

from __future__ import annotations

from collections.abc import Container, Sequence

from epochtop.engine.protocol.quantities import plural
from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.cells.rows import ALARM, FAINT, FIRST, GOOD, QUIET, STRONG, TEXT
from epochtop.tui.cells.table import Cell, TableColumn
from epochtop.tui.runs_table.columns import FACTS, Column, column_of
from epochtop.tui.runs_table.groups import Group
from epochtop.tui.runs_table.model import Line, TableModel, runs_of
from epochtop.tui.screens.status import MARKS

NO_RUNS = "No runs yet. Press esc to begin one."
NO_MATCH = "No run matches. Press / to change the filter, H to show hidden runs."
HINT = "tab: next kind of columns · > < = limit the column at the cursor · A selects all"
FIXED = 2
"""Columns that do not scroll: the marks and the name."""
SAMPLE = 200
"""Lines whose texts decide the width of a column."""
MARK_CELLS = 3
NAME_CELLS = (12, 44)
WIDEST = 24
"""Most cells of any other column."""
GROUPED_NAMES = 1.5
"""How much wider than for runs the column of names may be for groups."""

KINDS = ("fact", "metric", "config")
"""Kinds of columns in the order of the table."""

ROLES = {
    "running": GOOD,
    "paused": FIRST + 1,
    "diverged": ALARM,
    "unsaved": ALARM,
    "failed": ALARM,
    "died": ALARM,
}
"""Roles of the states that stand out."""


def table_columns(model: TableModel, width: int) -> list[TableColumn]:
    """The columns for a terminal of `width` cells: marks, name, state, and those of the layout."""
    sample = model.lines[:SAMPLE]
    names = max((len(model.name(line)) for line in sample), default=0)
    room = max(NAME_CELLS[0], min(NAME_CELLS[1], width // 3))
    marks = TableColumn("state", "", MARK_CELLS)
    name = TableColumn("run", "run", max(NAME_CELLS[0], min(names, room)), keeps_end=True)
    shown = [FACTS["state"], *model.columns]
    return [marks, name, *(_table_column(model, column, sample) for column in shown)]


def title_of(model: TableModel, selected: int) -> str:
    """`Runs · 12 of 60 runs · best val/accuracy descending · 3 selected`."""
    layout, shown = model.layout, len(model.matches)
    count = f"{shown:,} of {plural(len(model.runs), 'run')}" if shown < len(model.runs) else plural(shown, "run")
    parts = [f"Runs · {count}"]
    if not all(run.complete for run in model.runs):
        parts.append("reading …")
    if model.group_column is not None:
        parts.append(f"{plural(len(model.lines), 'group')} by {model.group_column.label}")
    sort = column_of(layout.sort)
    if sort is not None:
        parts.append(f"{sort.label} {'descending' if layout.descending else 'ascending'}")
    if selected:
        parts.append(f"{selected} selected")
    if model.hidden:
        parts.append(f"{model.hidden} hidden")
    return " · ".join(parts)


def section_start(kinds: Sequence[str], place: int, sections: int) -> int | None:
    """The first column of another kind: facts, metrics, settings, in a circle. `kinds` are those of all columns, `place` is
    the column now; None if there is no other kind."""
    order = [kind for kind in KINDS if kind in kinds]
    if len(order) < 2:
        return None
    wanted = order[(order.index(kinds[place]) + sections) % len(order)]
    return kinds.index(wanted)


def _table_column(model: TableModel, column: Column, sample: Sequence[Line]) -> TableColumn:
    texts = [model.text(line, column) for line in sample[: SAMPLE if model.group_column is None else 20]]
    widest = max((len(text) for text in texts), default=0)
    width = max(len(column.label) + 1, min(WIDEST, widest))
    return TableColumn(
        column.key, column.label, min(width, WIDEST), _is_number(model, column, sample), column.kind == "metric"
    )


def _is_number(model: TableModel, column: Column, sample: Sequence[Line]) -> bool:
    values = [column.value(run, model.now) for line in sample[:20] for run in runs_of(line)[:1]]
    return any(isinstance(value, float | int) for value in values) and not any(isinstance(v, str) for v in values)


def cells_of(model: TableModel, line: Line, selected: Container[str], hidden: Container[str]) -> list[Cell]:
    """The cells of a line."""
    ids = [run.id for run in runs_of(line)]
    marked = [run_id in selected for run_id in ids]
    mark = "▪" if all(marked) else "▫" if any(marked) else " "
    role = FAINT if all(run_id in hidden for run_id in ids) else TEXT
    state = line.summary.state if isinstance(line, RunDetails) else ""
    symbol = MARKS.get(state, "≡")
    cells = [(f"{mark}{symbol}", STRONG if any(marked) else ROLES.get(state, QUIET)), (model.name(line), role)]
    if isinstance(line, Group):
        cells[1] = (model.name(line), STRONG)
    for column in (FACTS["state"], *model.columns):
        text = model.text(line, column)
        cells.append((text, ROLES.get(state, role) if column.key == "state" else role))
    return cells
