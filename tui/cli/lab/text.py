"""The result of an experiment on the command line: pictures, the figures behind them, and the verdict last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import EMPTY, uncolored
from epochtop.tui.cells.styles import colored
from epochtop.tui.lab import result_rows
from epochtop.tui.state.experiment import ExperimentState

PLOT_ROWS = (16, 22)
"""Fewest and most rows of a plot; between them, it takes half of the terminal."""
WIDEST = 120
"""Widest lines in cells: wider sentences are harder to read."""


def report(state: ExperimentState, color: bool) -> list[str]:
    """The report of a finished experiment, as wide as the terminal, or 80 cells without one."""
    width, lines = room()
    return painted(rows(state, width, lines), color)


def room() -> tuple[int, int]:
    """Width for sentences in cells and height in lines; 80 × 24 without a terminal."""
    size = shutil.get_terminal_size((80, 24))
    return min(WIDEST, size.columns), size.lines


def painted(rows: Iterable[Row], color: bool) -> list[str]:
    """Rows as lines, in color if `color` is set and NO_COLOR is not."""
    paint = colored if color and not os.environ.get("NO_COLOR") else uncolored
    return [paint(one) for one in rows]


def rows(state: ExperimentState, width: int, lines: int) -> list[Row]:
    """The report for a terminal of this size."""
    least, most = PLOT_ROWS
    drawn = result_rows.pictures(state, width, max(least, min(most, lines // 2)))
    blocks = [
        drawn,
        result_rows.medians(state, width),
        [
            *result_rows.finding(state, width),
            *result_rows.reasons(state, width),
            *result_rows.circumstances(state, width),
        ],
    ]
    return [line for block in blocks if block for line in (EMPTY, *block)]
