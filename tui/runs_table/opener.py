"""Opens the table of runs over the main screen. It imports the page when it is first opened, after the first frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from epochtop.engine.runs.families import place_of
from epochtop.tui.screens.main import MainScreen

if TYPE_CHECKING:
    from epochtop.engine.runs.table.details import RunDetails
    from epochtop.tui.runs_table.source import TableSource


RunsOfCurve = tuple[str, Mapping[Path, str]]
"""Name of a group, and path and name of each of its runs, whose mean is drawn; a single run has no group."""


class TableOpener:
    """Keeps what the table has read while it is closed."""

    def __init__(
        self, app: App[int], main: MainScreen, home: Path, draw: Callable[[Sequence[RunsOfCurve], str], None]
    ) -> None:
        """`draw` draws a family of these curves and no others; the first run of the first one is opened next."""
        self._app, self._main, self._home, self._draw = app, main, home, draw
        self._source: TableSource | None = None

    def open(self) -> None:
        """Open the table."""
        from epochtop.tui.runs_table.page import RunsTablePage
        from epochtop.tui.runs_table.source import TableSource

        self._source = self._source or TableSource(self._home)
        runs = self._main.runs
        self._app.push_screen(RunsTablePage(self._home, self._source, self.draw, live=runs.live, now=runs.now))

    def draw(self, curves: Sequence[tuple[str, Sequence[RunDetails]]], column: str = "") -> None:
        """Draw these curves on the chart and no others: a single run, or a group under its name. The first is in front.

        If the table is sorted by a metric, which is `column` then, that metric is drawn.
        """
        first = curves[0][1][0]
        kind, _, series = column.partition(":")
        family = place_of(series).family if kind in ("last", "best") and series in first.series else ""
        self._draw([(name, {Path(run.path): run.name for run in runs}) for name, runs in curves], family)
        self._main.runs.open(first.id)
