"""Notes at single steps: the first bad value, a seam, a suggested learning rate. Texts stand in rows without ink.

Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log10

from epochtop.tui.cells.canvas import BLANK, Canvas
from epochtop.tui.cells.rows import ALARM
from epochtop.tui.chart.axes import Limits
from epochtop.tui.chart.curves import ChartView
from epochtop.tui.chart.groups.mean import group_curves
from epochtop.tui.chart.marks.signs import AXIS, CURSOR
from epochtop.tui.chart.plotting import row_of
from epochtop.tui.chart.run_series import Sweep
from epochtop.tui.chart.trace import Trace

CellOf = Callable[[float], int | None]
"""The column of a step; None outside of the view."""


def put_notes(canvas: Canvas, trace: Trace, view: ChartView, limits: Limits, cursor: int | None) -> None:
    """Write all notes about a run or a group."""
    cell = _cell_of(trace, view)
    if cursor is not None and (column := cell(cursor)) is not None:
        for row in range(canvas.height):
            canvas.put(column, row, "│", CURSOR, over=False)
    if not trace.peers:
        _seam_marks(canvas, trace, cell)
    _bad_mark(canvas, trace, limits, cell)
    _suggestion_mark(canvas, trace.sweep, cell)


def _cell_of(trace: Trace, view: ChartView) -> CellOf:
    def cell(step: float) -> int | None:
        x = view.cell(trace.from_step(step, view.unit))
        return min(view.width - 1, int(x)) if 0 <= x <= view.width else None

    return cell


def first_bad(trace: Trace) -> tuple[int, str] | None:
    """Step and text of the first value that is not finite: `NaN at step 12`, of a group `NaN in 2 of 8 runs at step 12`."""
    series = [trace.main]
    if trace.peers:
        series = [series for curve in group_curves(trace)[:1] for _, series in curve.series]
    bad = [(each.first_bad_step, each.bad_kind) for each in series if each.first_bad_step is not None]
    if not bad:
        return None
    step, kind = min(bad)
    runs = f" in {len(bad)} of {len(trace.runs)} runs" if trace.peers else ""
    return step, f"{kind}{runs} at step {step:,}"


def _bad_mark(canvas: Canvas, trace: Trace, limits: Limits, cell: CellOf) -> None:
    bad = first_bad(trace)
    if bad is None or (column := cell(bad[0])) is None:
        return
    step, text = bad
    before = trace.main.near(step - 1) if step else None
    row = row_of(before.last, limits, canvas.height) if before and before.finite else None
    row = canvas.height // 2 if row is None else row
    for line in range(canvas.height):
        canvas.put(column, line, "╎", ALARM, over=False)
    is_right = column + 2 + len(text) <= canvas.width
    start = column + 1 if is_right else max(0, column - len(text) - 1)
    note = f" {text}" if is_right else f"{text} "
    row = _free_row(canvas, start, len(note), max(row, 3))
    canvas.put(start, row, note, ALARM)
    canvas.put(column, row, "✗", ALARM)


def _free_row(canvas: Canvas, start: int, width: int, wanted: int) -> int:
    """The row without ink that is nearest to `wanted`; `wanted` if there is none."""
    wanted = min(canvas.height - 1, wanted)
    free = [
        row
        for row in range(canvas.height)
        if all(role in (BLANK, CURSOR) for role in canvas.roles[row][start : start + width])
    ]
    return min(free, key=lambda row: abs(row - wanted), default=wanted)


def _seam_marks(canvas: Canvas, trace: Trace, cell: CellOf) -> None:
    """A dotted line with an arrow at each step from which on values came again."""
    for step in trace.main.seams:
        column = cell(step)
        if column is not None:
            for row in range(canvas.height):
                canvas.put(column, row, "↶" if row == canvas.height - 1 else "┊", AXIS, over=False)


def _suggestion_mark(canvas: Canvas, sweep: Sweep | None, cell: CellOf) -> None:
    """A line from top to bottom at the learning rate that a range test suggests."""
    if sweep is None or sweep.suggested is None:
        return
    column = cell(sweep.step(log10(sweep.suggested)))
    if column is None:
        return
    for row in range(canvas.height):
        canvas.put(column, row, "┊", CURSOR, over=False)
    note = f"try {sweep.suggested:g}"
    fits = column + 2 + len(note) <= canvas.width
    start = column + 2 if fits else max(0, column - 1 - len(note))
    canvas.put(start, _free_row(canvas, start, len(note), canvas.height - 1), note, CURSOR)
