"""Opens the table of runs over the main screen. It imports the page when it is first opened, after the first frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from epochtop.tui.screens.main import MainScreen

if TYPE_CHECKING:
    from epochtop.engine.runs.table.details import RunDetails
    from epochtop.tui.runs_table.source import TableSource


RunsOfCurve = tuple[str, Mapping[Path, str]]
"""Name of a group, and path and name of each of its runs; a single run has no group."""


class TableOpener:
    """Keeps what the table has read while it is closed."""

    def __init__(
        self, app: App[int], main: MainScreen, home: Path, draw: Callable[[Sequence[RunsOfCurve]], None]
    ) -> None:
        """`draw` draws these curves and no others; the first run of the first one is opened next."""
        self._app, self._main, self._home, self._draw = app, main, home, draw
        self._source: TableSource | None = None

    def open(self) -> None:
        """Open the table."""
        from epochtop.tui.runs_table.page import RunsTablePage
        from epochtop.tui.runs_table.source import TableSource

        self._source = self._source or TableSource(self._home)
        runs = self._main.runs
        self._app.push_screen(RunsTablePage(self._home, self._source, self.draw, live=runs.live, now=runs.now))

    def draw(self, curves: Sequence[tuple[str, Sequence[RunDetails]]]) -> None:
        """Draw these curves on the chart and no others: a single run, or a group under its name. The first is in front."""
        self._draw([(name, {Path(run.path): run.name for run in runs}) for name, runs in curves])
        self._main.runs.open(curves[0][1][0].id)
