"""The runs on the screen: followed, folded into a state, fed to the chart. The same for live and finished runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from epochtop.engine.protocol.events import Event, Finished
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import read_record
from epochtop.tui.chart.curves import Trace, sweep_of
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.client.follower import Death, Following, News, take_in
from epochtop.tui.client.standby import how_it_ended
from epochtop.tui.state.run import RunState


class Session:
    """The run that the screen shows. Raises Invalid if it is none."""

    def __init__(self, run: Path, exit_code: Callable[[Path], int | None], feed: Callable[[Event], object]) -> None:
        self.run = run
        self.state = RunState(read_record(run))
        self.trace = Trace(self.name, sweep=sweep_of(self.state.record.spec if self.state.record else None))
        self.following = Following(run)
        self._exit_code, self._feed = exit_code, feed
        self.log: list[str] = []
        """Lines that nobody has shown yet."""

    @property
    def name(self) -> str:
        """What people call it."""
        record = self.state.record
        return (record.spec.name if record else "") or self.run.name

    @property
    def catching_up(self) -> bool:
        """Whether history waits to be taken in, which should not be left to the screen's leisurely pace."""
        return self.following.behind

    def take(self) -> bool:
        """Take in what has come. True if there was anything."""
        return take_in(self.following, self._apply)

    def _apply(self, event: News) -> None:
        if isinstance(event, Death):
            how = how_it_ended(self._exit_code(self.run))
            line: str | None = self.state.died(how)
            self.log += [f"output.log | {text}" for text in event.tail.splitlines()]
        else:
            line = self.state.apply(event)
            if isinstance(event, Event):
                self._feed(event)
        if isinstance(event, Finished):
            self.log += self.state.afterwards()
        if line:
            self.log += line.splitlines()

    def close(self) -> None:
        """Stop following; the run itself goes on."""
        self.following.close()


class Overlay:
    """Another run behind the shown one; a live one keeps growing."""

    def __init__(self, run: Path, name: str) -> None:
        self.run = run
        self.trace = Trace(name)
        with suppress(Invalid):  # a record that cannot be read has no sweep
            self.trace.sweep = sweep_of(read_record(run).spec)
        self.following = Following(run)

    def take(self) -> bool:
        """Take in what has come. True if there was anything."""
        return take_in(self.following, self._apply)

    def _apply(self, event: News) -> None:
        if isinstance(event, Event):
            self.trace.feed(event)

    def close(self) -> None:
        """Stop following."""
        self.following.close()


class Stage:
    """What the chart shows: one run, and others behind it."""

    def __init__(self, chart: LossChart) -> None:
        self._chart = chart
        self.session: Session | None = None
        self.overlays: dict[Path, Overlay] = {}

    def open(self, run: Path, exit_code: Callable[[Path], int | None]) -> Session:
        """Show a run from its beginning; the one before goes on unseen. Raises Invalid if it is none."""
        session = Session(run, exit_code, self._chart.feed)
        self.drop_overlay(run)
        self.close_run()
        self._chart.show(session.trace, None)
        self.session = session
        return session

    def close_run(self) -> None:
        """Show no run; it goes on."""
        if self.session is not None:
            self.session.close()
            self.session = None
            self._chart.clear()

    def add_overlay(self, run: Path, name: str) -> None:
        """Lay another run behind the shown one."""
        self.overlays[run] = Overlay(run, name)
        self._show_overlays()

    def drop_overlay(self, run: Path) -> None:
        """Take an overlay away, if it is there."""
        overlay = self.overlays.pop(run, None)
        if overlay is not None:
            overlay.close()
            self._show_overlays()

    def take(self) -> bool:
        """Take in what has come; True if the state of the shown run is another one."""
        grown = [overlay for overlay in self.overlays.values() if overlay.take()]
        if grown:
            self._show_overlays()
        session = self.session
        if session is None:
            return False
        before = session.state.state
        session.take()
        if session.state.state == "died" != before:
            self._chart.finish()  # for every other end there is an event, which the chart has seen
        return session.state.state != before

    def close(self) -> None:
        """Stop following everything."""
        for overlay in self.overlays.values():
            overlay.close()
        if self.session is not None:
            self.session.close()

    def _show_overlays(self) -> None:
        self._chart.set_overlays([overlay.trace for overlay in self.overlays.values()])
