"""The runs on the chart: one run and any number of overlays, live or finished, alone or in groups, and the family of series
that is drawn.

Owns the sessions and hands their events to the chart. Knows no other widget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epochtop.engine.protocol.events import Event
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened.sources import record_of
from epochtop.tui.board.board import Board
from epochtop.tui.chart.run_series import FamilyHistory, Sweep, sweep_of
from epochtop.tui.chart.trace import Trace
from epochtop.tui.client.follower import Following, News, drain
from epochtop.tui.client.session import Session
from epochtop.tui.state.run import RunState

if TYPE_CHECKING:
    from epochtop.tui.runs_table.opener import RunsOfCurve

RunSession = Session[RunState]


class FamilyReader:
    """Reads a run again, and then follows it, for the values of some families of series."""

    def __init__(self, run: Path, trace: Trace, families: set[str]) -> None:
        self.history = FamilyHistory(trace.run, families)
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
            self.history.feed(event)

    def close(self) -> None:
        """Stop reading and forget the values."""
        self._following.close()
        self.history.keep(set())


class FamilyReaders:
    """The readers of one run. Each reads families that were shown at the same time."""

    def __init__(self, run: Path, trace: Trace) -> None:
        self._run, self._trace = run, trace
        self._readers: list[FamilyReader] = []

    @property
    def behind(self) -> bool:
        """Whether more of a history waits."""
        return any(reader.behind for reader in self._readers)

    def show(self, families: set[str]) -> None:
        """Read the history of the families that the run has and the trace does not, and forget other families."""
        data, readers = self._trace.run, self._readers
        for reader in readers:
            reader.history.keep(families | {data.main})
            if not reader.history.families:
                reader.close()
        self._readers = [reader for reader in readers if reader.history.families]
        missing = {family for family in families & data.known if not data.is_complete(family)}
        if missing:
            self._readers.append(FamilyReader(self._run, self._trace, missing))

    def drain(self) -> bool:
        """Take the values that were read. True if there were any events."""
        return sum(reader.drain() for reader in self._readers) > 0

    def close(self) -> None:
        """Stop reading."""
        for reader in self._readers:
            reader.close()


class Overlay:
    """Another run behind the open one; a live one keeps growing."""

    def __init__(self, run: Path, name: str, family: str = "") -> None:
        self.run = run
        self.trace = Trace(name, sweep=_sweep(run))
        self.following = Following(run)
        self.readers = FamilyReaders(run, self.trace)
        self.trace.selected = family

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

    def __init__(self, board: Board, exit_code: Callable[[Path], int | None]) -> None:
        self._board, self._chart, self._exit_code = board, board.chart, exit_code
        self.session: RunSession | None = None
        self.overlays: dict[Path, Overlay] = {}
        self._groups: list[RunsOfCurve] = []
        """The groups among the runs that were drawn together."""
        self._drawn_with: Path | None = None
        """The run in front of these groups."""
        self._family_drawn = ""
        """The family with which that run is opened; empty for its main one."""
        self._readers: FamilyReaders | None = None
        self._families: set[str] = set()
        """Families that the readers were last told to show."""

    @property
    def catching_up(self) -> bool:
        """Whether history is waiting, which the screen should read faster than its usual pace."""
        if self.session is not None and self._families != self._shown_families():
            return True
        readers = [
            *([self._readers] if self._readers else []),
            *(overlay.readers for overlay in self.overlays.values()),
        ]
        return (self.session is not None and self.session.catching_up) or any(reader.behind for reader in readers)

    def open(self, run: Path) -> RunSession:
        """Show a run from its first step; the previous one continues unseen. Raises Invalid if it is not a run."""
        record = record_of(run)
        session = Session(run, RunState(record), self._exit_code, self._chart.feed)
        if self._groups and run != self._drawn_with:
            self.draw([])
        self.drop_overlay(run)
        self.close_run()
        trace = Trace(session.name, sweep=sweep_of(record.spec))
        if run == self._drawn_with:
            trace.selected, self._family_drawn = self._family_drawn, ""
        self._readers = FamilyReaders(run, trace)
        self._chart.show(trace, session.state.total_steps or None)
        self.session = session
        self._show_overlays()
        return session

    def select(self, family: str) -> None:
        """Draw a family of series of the open run and of its overlays."""
        if self._readers is None:
            return
        for trace in (self._chart.trace, *(overlay.trace for overlay in self.overlays.values())):
            trace.selected = family
        self._read_shown()
        self._chart.refilled()

    def _shown_families(self) -> set[str]:
        """The families of the large chart and of the grid."""
        return {self._chart.trace.family, *self._board.families} - {""}

    def _read_shown(self) -> None:
        """Read the families that are shown, of every run."""
        self._families = self._shown_families()
        for readers in (self._readers, *(overlay.readers for overlay in self.overlays.values())):
            if readers is not None:
                readers.show(self._families)

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

    def draw(self, curves: Sequence[RunsOfCurve], family: str = "") -> None:
        """Draw these curves and no others, each a run or a group. The first run of the first one must be opened next.

        `family` is drawn instead of the one that the chart draws.
        """
        self._groups, self._drawn_with, self._family_drawn = [], None, family
        for path in list(self.overlays):
            self.drop_overlay(path)
        self._groups = [(name, runs) for name, runs in curves if len(runs) > 1]
        self._drawn_with = next((path for _, runs in curves for path in runs), None)
        for _, runs in curves:
            for path, name in runs.items():
                if path != self._drawn_with:
                    self.overlays[path] = Overlay(path, name, family)
        self._show_overlays()

    def drop_overlay(self, run: Path) -> None:
        """Remove an overlay, if there is one of this run."""
        overlay = self.overlays.pop(run, None)
        if overlay is not None:
            overlay.close()
            self._show_overlays()

    def drain(self) -> bool:
        """Apply the events that have arrived; True if the state of the open run changed."""
        self._read_shown()
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
        """Give the chart its curves: groups with their runs, then single runs."""
        traces = {path: overlay.trace for path, overlay in self.overlays.items()}
        front = self.session.run if self.session is not None else None
        if front is not None:
            traces[front] = self._chart.trace
        for trace in traces.values():
            trace.group, trace.peers = "", ()
        peers: set[Path] = set()
        for name, runs in self._groups:
            members = [path for path in runs if path in traces]
            if members:
                first = traces[members[0]]
                first.group, first.peers = name, tuple(traces[path] for path in members[1:])
                peers |= set(members[1:])
        self._chart.set_overlays([trace for path, trace in traces.items() if path not in peers and path != front])
