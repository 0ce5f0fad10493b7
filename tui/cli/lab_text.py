"""An experiment's result on the command line: pictures, the figures behind them, and last what follows from them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import EMPTY, plain
from epochtop.tui.cells.styles import colored
from epochtop.tui.lab import result_rows
from epochtop.tui.state.experiment import ExperimentState

PLOT_ROWS = (16, 22)
"""Of a plot: at least, at most; between them half of the terminal."""
WIDEST = 120
"""Cells beyond which sentences are not easier to read."""


def report(state: ExperimentState, color: bool) -> list[str]:
    """Everything there is to say at its end, as wide as the terminal; 80 cells where there is none."""
    width, lines = room()
    return painted(rows(state, width, lines), color)


def room() -> tuple[int, int]:
    """Cells for a sentence and lines of the terminal; as of 80 × 24 where there is none."""
    size = shutil.get_terminal_size((80, 24))
    return min(WIDEST, size.columns), size.lines


def painted(rows: Iterable[Row], color: bool) -> list[str]:
    """Rows as lines, in color where that is wanted."""
    paint = colored if color and not os.environ.get("NO_COLOR") else plain
    return [paint(found) for found in rows]


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
    return [found for block in blocks if block for found in (EMPTY, *block)]
