"""An experiment's result on the command line: pictures, the figures behind them, and last what follows from them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from tui import lab_result
from tui.lab_rows import colored, plain
from tui.lab_state import LabState
from tui.plot import Row

PLOT_ROWS = (16, 22)
"""Of a plot: at least, at most; between them half of the terminal."""
WIDEST = 120
"""Cells beyond which sentences are not easier to read."""


def report(state: LabState, color: bool) -> list[str]:
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


def rows(state: LabState, width: int, lines: int) -> list[Row]:
    """The report for a terminal of this size."""
    least, most = PLOT_ROWS
    drawn = lab_result.pictures(state, width, max(least, min(most, lines // 2)))
    blocks = [
        drawn,
        lab_result.medians(state, width),
        [*lab_result.finding(state, width), *lab_result.reasons(state, width), *lab_result.circumstances(state, width)],
    ]
    return [found for block in blocks if block for found in (lab_result.EMPTY, *block)]
