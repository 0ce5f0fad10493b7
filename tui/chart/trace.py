"""One run as a chart sees it: the series of the family that it draws, the last values of all others, and the scales of
the x axis. Collected from the run's events. Never imports a widget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, log10
from typing import Literal, NamedTuple

from epochtop.engine.protocol.events import Event, Finished, Logged, Losses, ScriptStarted, Started
from epochtop.engine.protocol.schedules import RANGE, range_rate
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.families import families, labels, main_family, place_of
from epochtop.engine.runs.series import SeriesTranslator, SeriesWindow
from epochtop.tui.chart.scales import StepScale
from epochtop.tui.chart.series import Series

Unit = Literal["step", "epoch", "seconds", "clock", "rate"]
"""`clock` is Unix time. `rate` is the decimal logarithm of the learning rate, for runs with the `range_test` schedule."""

EPOCHS = ("epoch", "train/epoch")
"""Series of a script that count its epochs."""


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


class Curve(NamedTuple):
    """A series of a family, and its short name."""

    label: str
    series: Series


@dataclass
class Trace:
    """One run. It keeps the values of one family; :meth:`select` chooses another, which must be read again."""

    name: str = ""
    steps_per_epoch: int = 1
    """1 if unknown."""
    sweep: Sweep | None = None
    family: str = ""
    """The family that is drawn; empty before the first value."""
    chosen: bool = False
    """Whether the user chose the family; otherwise the main one is drawn."""
    steps: int = 0
    """The next step of the run: 1 more than the highest one."""
    last_values: dict[str, float] = field(default_factory=dict)
    """Last value of every series, by name."""
    series: dict[str, Series] = field(default_factory=dict)
    """Series of the family, by name."""
    seconds: StepScale = field(default_factory=StepScale)
    clock: StepScale = field(default_factory=StepScale)
    epochs: StepScale = field(default_factory=StepScale)
    """Epochs by step, as a script logs them."""
    _translator: SeriesTranslator = field(default_factory=SeriesTranslator)

    # --- the family ------------------------------------------------------------------------------------------

    @property
    def main(self) -> Series:
        """The series that is drawn as a line; without values before the first one."""
        curves = self.curves
        return curves[0].series if curves else Series(2)

    @property
    def curves(self) -> list[Curve]:
        """The series of the family that have values, the main one first."""
        return [Curve(label, self.series[name]) for name, label in self._labels().items() if name in self.series]

    def _labels(self) -> dict[str, str]:
        return labels(self.series, self.family)

    @property
    def families(self) -> list[str]:
        """All families of the run, the main one first."""
        return families(self.last_values)

    def select(self, family: str) -> None:
        """Draw another family, from no values on: :meth:`refill` takes its history."""
        self.family, self.chosen = family, True
        self.series = {}

    # --- events ----------------------------------------------------------------------------------------------

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
        for window in windows:
            self._take(window, isinstance(event, Losses | Logged))
        return bool(windows) or isinstance(event, Started | ScriptStarted)

    def _take(self, window: SeriesWindow, training: bool) -> None:
        is_new = window.name not in self.last_values
        self.last_values[window.name] = window.last
        if is_new and not self.chosen:
            self._follow_main()
        if place_of(window.name).family == self.family:
            self._series(window.name).add(window)
        if not training:
            return
        stop = window.last_step + 1
        self.steps = max(self.steps, stop)
        self.seconds.add(stop, window.seconds)
        if window.time is not None:
            self.clock.add(stop, window.time)
        if window.name in EPOCHS:
            self.epochs.add(stop, window.last)

    def _follow_main(self) -> None:
        """Draw the family of the loss as soon as there is one."""
        family = main_family(self.last_values)
        if family != self.family:
            self.family, self.series = family, {}

    def _series(self, name: str) -> Series:
        if name not in self.series:
            self.series[name] = Series()
        return self.series[name]

    # --- the x axis ------------------------------------------------------------------------------------------

    @property
    def epoch_known(self) -> bool:
        """Whether epochs can be drawn; for a run of the engine they always can."""
        return self.steps_per_epoch > 1 or self.epochs.known

    def to_step(self, x: float, unit: Unit) -> float:
        """The step at `x` of the x axis; -1 for a learning rate if the run is not a range test."""
        match unit:
            case "rate":
                return self.sweep.step(x) if self.sweep else -1.0
            case "seconds":
                return self.seconds.step_at(x)
            case "clock":
                return self.clock.step_at(x)
            case "epoch" if self.epochs.known:
                return self.epochs.step_at(x)
            case "epoch":
                return x * self.steps_per_epoch
            case _:
                return x

    def from_step(self, step: float, unit: Unit) -> float:
        """The position of `step` on the x axis."""
        match unit:
            case "rate":
                return self.sweep.level(step) if self.sweep else -inf
            case "seconds":
                return self.seconds.at(step)
            case "clock":
                return self.clock.at(step)
            case "epoch" if self.epochs.known:
                return self.epochs.at(step)
            case "epoch":
                return step / self.steps_per_epoch
            case _:
                return step


def heading(family: str) -> str:
    """A family as a heading: `Loss`, `accuracy`, `system/gpu0/percent`."""
    return "Loss" if family in ("", "loss") else family
