"""The series of one run, collected from its events: values of the families that are drawn, the last value of every other
series, and the scales of the x axis. Several charts can draw one of these. Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import log10

from epochtop.engine.protocol.events import Event, Finished, Logged, Losses, ScriptStarted, Started
from epochtop.engine.protocol.schedules import RANGE, range_rate
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.families import EPOCHS, counts, main_family, place_of
from epochtop.engine.runs.series import SeriesTranslator, SeriesWindow
from epochtop.tui.chart.scales import StepScale
from epochtop.tui.chart.series import Series

MOST_COUNTERS = 16
"""Series that count, of which a run offers the first ones."""


@dataclass
class Sweep:
    """The learning rates of a range test, up to `top`. Their logarithm is linear in the step."""

    top: float
    steps: int = 2
    suggested: float | None = None
    """The learning rate that the test suggests; None until it finishes."""

    def rate(self, step: float) -> float:
        """The learning rate of a step."""
        return range_rate(self.top, step, self.steps)

    def level(self, step: float) -> float:
        """The decimal logarithm of the learning rate of a step."""
        return log10(self.top) + log10(RANGE) * (1 - step / max(1, self.steps - 1))

    def step(self, level: float) -> float:
        """The step whose learning rate has this decimal logarithm."""
        return (1 - (level - log10(self.top)) / log10(RANGE)) * max(1, self.steps - 1)


def sweep_of(spec: RunSpec | None) -> Sweep | None:
    """The sweep of a run; None if the run is not a range test."""
    return Sweep(spec.learning_rate) if spec is not None and spec.schedule == "range_test" else None


@dataclass
class RunSeries:
    """The series of one run. It keeps the values of its main family; :class:`FamilyHistory` adds those of others."""

    steps_per_epoch: int = 1
    """1 if unknown."""
    sweep: Sweep | None = None
    steps: int = 0
    """The next step of the run: 1 more than the highest one."""
    recorded_steps: int = 0
    """Steps that were recorded before now; 0 if unknown."""
    main: str = ""
    """The main family; empty before the first value."""
    last_values: dict[str, float] = field(default_factory=dict)
    """Last value of every series, by name."""
    series: dict[str, Series] = field(default_factory=dict)
    """Values of the series that can be drawn, by name."""
    seconds: StepScale = field(default_factory=StepScale)
    clock: StepScale = field(default_factory=StepScale)
    epochs: StepScale = field(default_factory=StepScale)
    """Epochs by step, as a script logs them."""
    counters: dict[str, StepScale] = field(default_factory=dict)
    """Values by step of the series that count, such as tokens."""
    fallen: set[str] = field(default_factory=set)
    """Those of them that have fallen, so that they do not count."""
    read_again: set[str] = field(default_factory=set)
    """Families that a :class:`FamilyHistory` fills."""
    known: set[str] = field(default_factory=set)
    """All families."""
    _translator: SeriesTranslator = field(default_factory=SeriesTranslator)

    def feed(self, event: Event) -> bool:
        """Take the data of an event; True if the curves changed."""
        match event:
            case Started():
                self.steps_per_epoch = max(1, event.steps_per_epoch)
                self.clock.begin(event.time)
                if self.sweep is not None:
                    self.sweep.steps = event.steps
            case ScriptStarted():
                self.clock.begin(event.time)
            case Finished(suggestion=suggestion) if suggestion is not None and self.sweep is not None:
                self.sweep.suggested = suggestion.learning_rate
                return False
            case _:
                pass
        windows = self._translator.windows(event)
        self._note(windows)
        for window in windows:
            self._take(window, isinstance(event, Losses | Logged))
        return bool(windows) or isinstance(event, Started | ScriptStarted)

    def _note(self, windows: list[SeriesWindow]) -> None:
        """Note the last values, and the families of series that are new."""
        new = [window.name for window in windows if window.name not in self.last_values]
        self.last_values.update((window.name, window.last) for window in windows)
        if new:
            self.known.update(place_of(name).family for name in new)
            self._follow_main()

    def _take(self, window: SeriesWindow, training: bool) -> None:
        family = place_of(window.name).family
        if family == self.main and family not in self.read_again:
            self.add(window)
        if not training:
            return
        stop = window.last_step + 1
        self.steps = max(self.steps, stop)
        self.seconds.add(stop, window.seconds)
        if window.time is not None:
            self.clock.add(stop, window.time)
        if window.name in EPOCHS:
            self.epochs.add(stop, window.last)
        elif counts(window.name) and (window.name in self.counters or len(self.counters) < MOST_COUNTERS):
            self._count(window.name, stop, window.last)

    def _count(self, name: str, stop: int, value: float) -> None:
        scale = self.counters.setdefault(name, StepScale())
        if scale.continues(stop) and value < scale.last:
            self.fallen.add(name)
        scale.add(stop, value)

    def _follow_main(self) -> None:
        """Keep the values of the loss as soon as there is one, which is its first window."""
        family = main_family(self.last_values)
        if family != self.main:
            if self.main not in self.read_again:
                self.drop(self.main)
            self.main = family

    def add(self, window: SeriesWindow) -> None:
        """Add values to a series that can be drawn."""
        series = self.series.get(window.name)
        if series is None:
            series = self.series[window.name] = Series()
            if window.summary is not None and window.steps is None:  # logged at every step
                series.expect(self.recorded_steps)
        series.add(window)

    def drop(self, family: str) -> None:
        """Forget the values of a family."""
        self.series = {name: series for name, series in self.series.items() if place_of(name).family != family}

    def is_complete(self, family: str) -> bool:
        """Whether all values of a family are here, or will be, without reading the log again."""
        return family == self.main or family in self.read_again


class FamilyHistory:
    """Fills families of a run from all of its events, which are read again for them. It stays their only source."""

    def __init__(self, run: RunSeries, families: Iterable[str]) -> None:
        self.run, self.families = run, set(families)
        self._translator = SeriesTranslator()
        for family in self.families:
            run.drop(family)
        run.read_again |= self.families

    def feed(self, event: Event) -> None:
        """Take the data of an event."""
        for window in self._translator.windows(event):
            if place_of(window.name).family in self.families:
                self.run.add(window)

    def keep(self, families: set[str]) -> None:
        """Forget the families that are not among these."""
        for family in self.families - families:
            self.run.read_again.discard(family)
            self.run.drop(family)
        self.families &= families
