"""The runs on the chart: one run and any number of overlays, live or finished.

Owns the sessions and hands their events to the chart. Knows no other widget.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from epochtop.engine.protocol.events import Event
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened.sources import record_of
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.trace import Trace, sweep_of
from epochtop.tui.client.follower import Following, News, drain
from epochtop.tui.client.session import Session
from epochtop.tui.state.run import RunState

RunSession = Session[RunState]


class Overlay:
    """Another run behind the open one; a live one keeps growing."""

    def __init__(self, run: Path, name: str) -> None:
        self.run = run
        self.trace = Trace(name)
        with suppress(Invalid):  # a record that cannot be read has no sweep
            self.trace.sweep = sweep_of(record_of(run).spec)
        self.following = Following(run)

    def drain(self) -> bool:
        """Apply the events that have arrived. True if there were any."""
        return drain(self.following, self._apply)

    def _apply(self, event: News) -> None:
        if isinstance(event, Event):
            self.trace.feed(event)

    def close(self) -> None:
        """Stop following."""
        self.following.close()


class Stage:
    """The open run and its overlays. `exit_code` returns the exit status of an engine, None if unknown."""

    def __init__(self, chart: LossChart, exit_code: Callable[[Path], int | None]) -> None:
        self._chart, self._exit_code = chart, exit_code
        self.session: RunSession | None = None
        self.overlays: dict[Path, Overlay] = {}

    def open(self, run: Path) -> RunSession:
        """Show a run from its first step; the previous one continues unseen. Raises Invalid if it is not a run."""
        record = record_of(run)
        session = Session(run, RunState(record), self._exit_code, self._chart.feed)
        self.drop_overlay(run)
        self.close_run()
        self._chart.show(Trace(session.name, sweep=sweep_of(record.spec)), None)
        self.session = session
        return session

    def close_run(self) -> None:
        """Show no run; it continues."""
        if self.session is not None:
            self.session.close()
            self.session = None
            self._chart.clear()

    def add_overlay(self, run: Path, name: str) -> None:
        """Draw another run behind the open one."""
        self.overlays[run] = Overlay(run, name)
        self._show_overlays()

    def drop_overlay(self, run: Path) -> None:
        """Remove an overlay, if there is one of this run."""
        overlay = self.overlays.pop(run, None)
        if overlay is not None:
            overlay.close()
            self._show_overlays()

    def drain(self) -> bool:
        """Apply the events that have arrived; True if the state of the open run changed."""
        grown = [overlay for overlay in self.overlays.values() if overlay.drain()]
        if grown:
            self._show_overlays()
        session = self.session
        if session is None:
            return False
        before = session.state.state
        session.drain()
        if session.state.state == "died" != before:
            self._chart.finish()  # every other end has an event, which the chart has seen
        return session.state.state != before

    def close(self) -> None:
        """Stop following all runs."""
        for overlay in self.overlays.values():
            overlay.close()
        if self.session is not None:
            self.session.close()

    def _show_overlays(self) -> None:
        self._chart.set_overlays([overlay.trace for overlay in self.overlays.values()])
