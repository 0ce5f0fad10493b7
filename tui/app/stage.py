"""The runs on the chart: one run and any number of overlays, live or finished, and the family of series that is drawn.

Owns the sessions and hands their events to the chart. Knows no other widget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from epochtop.engine.protocol.events import Event
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened.sources import record_of
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.run_series import FamilyHistory, Sweep, sweep_of
from epochtop.tui.chart.trace import Trace
from epochtop.tui.client.follower import Following, News, drain
from epochtop.tui.client.session import Session
from epochtop.tui.state.run import RunState

RunSession = Session[RunState]


class FamilyReader:
    """Reads a run again, and then follows it, for the values of one family of series."""

    def __init__(self, run: Path, trace: Trace, family: str) -> None:
        self.family = family
        self._history = FamilyHistory(trace.run, family)
        self._following = Following(run)

    def drain(self) -> bool:
        """Take the values that were read. True if there were any events."""
        return drain(self._following, self._apply)

    @property
    def behind(self) -> bool:
        """Whether more of the history waits."""
        return self._following.behind

    def _apply(self, event: News) -> None:
        if isinstance(event, Event):
            self._history.feed(event)

    def close(self) -> None:
        """Stop reading and forget the values."""
        self._following.close()
        self._history.close()


class FamilyReaders:
    """The readers of one run: at most one at a time, for the family that its trace draws."""

    def __init__(self, run: Path, trace: Trace) -> None:
        self._run, self._trace = run, trace
        self._reader: FamilyReader | None = None

    @property
    def behind(self) -> bool:
        """Whether more of a history waits."""
        return self._reader is not None and self._reader.behind

    def select(self, family: str) -> None:
        """Draw `family`, and read its history if the trace does not have it."""
        reader, data = self._reader, self._trace.run
        if reader is not None and reader.family not in (family, data.main):
            reader.close()
            self._reader = None
        self._trace.selected = family
        if not data.is_complete(family) and self._reader is None:
            self._reader = FamilyReader(self._run, self._trace, family)

    def drain(self) -> bool:
        """Take the values that were read. True if there were any events."""
        return self._reader is not None and self._reader.drain()

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.close()


class Overlay:
    """Another run behind the open one; a live one keeps growing."""

    def __init__(self, run: Path, name: str, family: str = "") -> None:
        self.run = run
        self.trace = Trace(name, sweep=_sweep(run))
        self.following = Following(run)
        self.readers = FamilyReaders(run, self.trace)
        if family:
            self.readers.select(family)

    def drain(self) -> bool:
        """Apply the events that have arrived. True if there were any."""
        self.trace.run.recorded_steps = self.following.recorded_steps
        new = drain(self.following, self._apply)
        return self.readers.drain() or new

    def _apply(self, event: News) -> None:
        if isinstance(event, Event):
            self.trace.feed(event)

    def close(self) -> None:
        """Stop following."""
        self.following.close()
        self.readers.close()


def _sweep(run: Path) -> Sweep | None:
    try:
        return sweep_of(record_of(run).spec)
    except Invalid:  # a record that cannot be read has no sweep
        return None


class Stage:
    """The open run and its overlays. `exit_code` returns the exit status of an engine, None if unknown."""

    def __init__(self, chart: LossChart, exit_code: Callable[[Path], int | None]) -> None:
        self._chart, self._exit_code = chart, exit_code
        self.session: RunSession | None = None
        self.overlays: dict[Path, Overlay] = {}
        self._readers: FamilyReaders | None = None

    @property
    def catching_up(self) -> bool:
        """Whether history is waiting, which the screen should read faster than its usual pace."""
        readers = [
            *([self._readers] if self._readers else []),
            *(overlay.readers for overlay in self.overlays.values()),
        ]
        return (self.session is not None and self.session.catching_up) or any(reader.behind for reader in readers)

    def open(self, run: Path) -> RunSession:
        """Show a run from its first step; the previous one continues unseen. Raises Invalid if it is not a run."""
        record = record_of(run)
        session = Session(run, RunState(record), self._exit_code, self._chart.feed)
        self.drop_overlay(run)
        self.close_run()
        trace = Trace(session.name, sweep=sweep_of(record.spec))
        self._readers = FamilyReaders(run, trace)
        self._chart.show(trace, session.state.total_steps or None)
        self.session = session
        return session

    def select(self, family: str) -> None:
        """Draw a family of series of the open run and of its overlays."""
        if self._readers is None:
            return
        for readers in (self._readers, *(overlay.readers for overlay in self.overlays.values())):
            readers.select(family)
        self._chart.refilled()

    def close_run(self) -> None:
        """Show no run; it continues."""
        if self._readers is not None:
            self._readers.close()
            self._readers = None
        if self.session is not None:
            self.session.close()
            self.session = None
            self._chart.clear()

    def add_overlay(self, run: Path, name: str) -> None:
        """Draw another run behind the open one."""
        self.overlays[run] = Overlay(run, name, self._chart.trace.selected)
        self._show_overlays()

    def set_overlays(self, runs: Sequence[tuple[Path, str]]) -> None:
        """Draw these runs, each with its name, behind the open one, and no others."""
        for path in list(self.overlays):
            self.drop_overlay(path)
        for path, name in runs:
            self.add_overlay(path, name)

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
        if self._readers is not None and self._readers.drain():
            self._chart.grown()
        session = self.session
        if session is None:
            return False
        before = session.state.state
        self._chart.trace.run.recorded_steps = session.following.recorded_steps
        session.drain()
        if session.state.state == "died" != before:
            self._chart.finish()  # every other end has an event, which the chart has seen
        return session.state.state != before

    def close(self) -> None:
        """Stop following all runs."""
        for overlay in self.overlays.values():
            overlay.close()
        if self._readers is not None:
            self._readers.close()
        if self.session is not None:
            self.session.close()

    def _show_overlays(self) -> None:
        self._chart.set_overlays([overlay.trace for overlay in self.overlays.values()])
