"""What the terminal does when a run ends while the app is open: it rings and shows a notification.

Runs are watched whether they are open or only in the list. Writes through Textual's driver, from the app's thread: between
two frames, never inside one. Must never read a run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from textual.app import App

from epochtop.configuration.load import Configuration
from epochtop.engine.runs.index import RunSummary
from epochtop.engine.terminal.desktop import BELL, desktop_notification
from epochtop.tui.app.stage import RunSession
from epochtop.tui.state.new_runs import LIVE

EVENTS = {
    "finished": "finished",
    "stopped": "stopped",
    "diverged": "diverged",
    "failed": "failed",
    "unsaved": "failed",
    "died": "failed",
}
"""Event of the configuration, by the state of a run that has ended."""
MOST = 3
"""Most notifications at once; further runs are counted."""


class Alerts:
    """Remembers which runs are active."""

    def __init__(self, app: App[int], configuration: Configuration) -> None:
        self._app = app
        self._events = frozenset(configuration["notifications.events"])
        self._has_bell = bool(configuration["notifications.bell"])
        self._kind = str(configuration["notifications.desktop"])
        self._active: set[str] = set()
        """Ids of the runs that were active when they were last seen."""
        self._open = ""
        """Id of the open run, whose events are newer than the list."""

    def look_at_open(self, session: RunSession | None, home: Path) -> None:
        """Look at the open run."""
        self._open = ""
        if session is not None and not session.catching_up:
            run = self._open = session.run.name if session.run.parent == home else str(session.run)
            self._alert(self._ended([(run, session.name, session.state.state, session.state.verdict())]))

    def look_at_list(self, summaries: Iterable[RunSummary]) -> None:
        """Look at all runs but the open one: the list may have been read before its end."""
        others = (run for run in summaries if run.id != self._open)
        self._alert(self._ended((run.id, run.name or run.id, run.state, run.note) for run in others))

    def _ended(self, runs: Iterable[tuple[str, str, str, str]]) -> list[tuple[str, str]]:
        """Titles and texts of the runs that have ended since they were last seen."""
        ended = []
        for run, name, state, text in runs:
            if state in LIVE:
                self._active.add(run)
            elif run in self._active:
                self._active.discard(run)
                if EVENTS[state] in self._events:
                    ended.append((f"epochtop: {name} {state}", text))
        return ended

    def _alert(self, ended: list[tuple[str, str]]) -> None:
        if not ended:
            return
        if len(ended) > MOST:
            ended[MOST - 1 :] = [(f"epochtop: {len(ended) - MOST + 1} more runs have ended", "")]
        notifications = "".join(desktop_notification(title, text, self._kind, os.environ) for title, text in ended)
        self._write(notifications + BELL * self._has_bell)

    def _write(self, sequence: str) -> None:
        driver = self._app._driver
        if sequence and driver is not None and not self._app.is_headless and not driver.is_web and _is_terminal():
            driver.write(sequence)


def _is_terminal() -> bool:
    """Whether Textual draws on a terminal."""
    stream = sys.__stderr__
    return stream is not None and stream.isatty()
