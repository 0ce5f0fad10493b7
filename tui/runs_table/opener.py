"""Opens the table of runs over the main screen. It imports the page when it is first opened, after the first frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from epochtop.tui.screens.main import MainScreen

if TYPE_CHECKING:
    from epochtop.engine.runs.table.details import RunDetails
    from epochtop.tui.runs_table.source import TableSource


class TableOpener:
    """Keeps what the table has read while it is closed."""

    def __init__(
        self, app: App[int], main: MainScreen, home: Path, overlay: Callable[[Sequence[tuple[Path, str]]], None]
    ) -> None:
        """`overlay` draws these runs, with their names, behind the open one, and no others."""
        self._app, self._main, self._home, self._overlay = app, main, home, overlay
        self._source: TableSource | None = None

    def open(self) -> None:
        """Open the table."""
        from epochtop.tui.runs_table.page import RunsTablePage
        from epochtop.tui.runs_table.source import TableSource

        self._source = self._source or TableSource(self._home)
        runs = self._main.runs
        self._app.push_screen(RunsTablePage(self._home, self._source, self.draw, live=runs.live, now=runs.now))

    def draw(self, runs: Sequence[RunDetails]) -> None:
        """Draw these runs on the chart and no others: the first one in front."""
        first, *others = runs
        self._overlay([(Path(run.path), run.name) for run in others])
        self._main.runs.open(first.id)
