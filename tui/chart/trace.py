"""One family of a run's series, as a chart draws it. Never imports a widget."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from epochtop.engine.protocol.events import Event
from epochtop.engine.protocol.quantities import format_fixed_width
from epochtop.engine.runs.families import families, labels, place_of
from epochtop.tui.chart.run_series import RunSeries, Sweep
from epochtop.tui.chart.scales import StepScale
from epochtop.tui.chart.series import Series

Unit = str
"""Quantity of the x axis: `step`, `epoch`, `seconds`, `clock`, `rate`, or a series that counts, as :func:`counter_unit` names it.

`clock` is Unix time. `rate` is the decimal logarithm of the learning rate, for runs with the `range_test` schedule.
"""
COUNTER = "series:"


def counter_unit(name: str) -> Unit:
    """The unit of the series of this name."""
    return COUNTER + name


def is_counter(unit: Unit) -> bool:
    """Whether a unit is a series."""
    return unit.startswith(COUNTER)


def counter_name(unit: Unit) -> str:
    """The name of the series that is a unit."""
    return unit[len(COUNTER) :]


class Curve(NamedTuple):
    """A series of a family, and its short name."""

    label: str
    series: Series


class Trace:
    """A family of the series of `run`: the main one, until another is selected."""

    def __init__(
        self, name: str = "", *, steps_per_epoch: int = 1, sweep: Sweep | None = None, run: RunSeries | None = None
    ) -> None:
        self.name = name
        """Name of the run."""
        self.run = run if run is not None else RunSeries(steps_per_epoch, sweep)
        self.selected = ""
        """The family that the user selected; empty for the main one."""
        self.accepts: Callable[[str], bool] | None = None
        """Whether a series of the family is drawn, by its name; None draws all."""
        self.peers: tuple[Trace, ...] = ()
        """The other runs of its group. Then the mean of all of them is drawn, with a band."""
        self.group = ""
        """Name of the group; empty for a single run."""

    def feed(self, event: Event) -> bool:
        """Take the data of an event; True if the curves changed."""
        return self.run.feed(event)

    @property
    def runs(self) -> tuple[Trace, ...]:
        """This run, and the others of its group."""
        return self, *self.peers

    # --- what is drawn ---------------------------------------------------------------------------------------

    @property
    def family(self) -> str:
        """The family that is drawn; empty before the first value."""
        return self.selected or self.run.main

    @property
    def families(self) -> list[str]:
        """All families of the run, the main one first."""
        return families(self.run.last_values)

    @property
    def curves(self) -> list[Curve]:
        """The series of the family that have values, the main one first."""
        series = self.run.series
        if self.accepts is not None:
            series = {name: values for name, values in series.items() if self.accepts(name)}
        return [Curve(label, series[name]) for name, label in labels(series, self.family).items()]

    @property
    def main(self) -> Series:
        """The series that is drawn as a line; without values before the first one."""
        curves = self.curves
        return curves[0].series if curves else Series(2)

    @property
    def steps(self) -> int:
        """The next step of the run."""
        return self.run.steps

    @property
    def sweep(self) -> Sweep | None:
        """The learning rates of a range test; None for other runs."""
        return self.run.sweep

    @property
    def seconds(self) -> StepScale:
        """Training time by step."""
        return self.run.seconds

    # --- the x axis ------------------------------------------------------------------------------------------

    @property
    def epoch_known(self) -> bool:
        """Whether epochs can be drawn; for a run of the engine they always can."""
        return self.run.steps_per_epoch > 1 or self.run.epochs.known

    @property
    def counter_units(self) -> list[Unit]:
        """The series of the run that can be its x axis."""
        counters, fallen = self.run.counters, self.run.fallen
        return [counter_unit(name) for name, scale in counters.items() if scale.rises and name not in fallen]

    def to_step(self, x: float, unit: Unit) -> float:
        """The step at `x` of the x axis; -1 for a quantity that the run does not have."""
        if is_counter(unit):
            scale = self.run.counters.get(counter_name(unit))
            return scale.step_at(x) if scale is not None else -1.0
        match unit:
            case "rate":
                return self.sweep.step(x) if self.sweep else -1.0
            case "seconds":
                return self.seconds.step_at(x)
            case "clock":
                return self.run.clock.step_at(x)
            case "epoch" if self.run.epochs.known:
                return self.run.epochs.step_at(x)
            case "epoch":
                return x * self.run.steps_per_epoch
            case _:
                return x

    def from_step(self, step: float, unit: Unit) -> float:
        """The position of `step` on the x axis; minus infinity for a quantity that the run does not have."""
        if is_counter(unit):
            scale = self.run.counters.get(counter_name(unit))
            return scale.at(step) if scale is not None else -inf
        match unit:
            case "rate":
                return self.sweep.level(step) if self.sweep else -inf
            case "seconds":
                return self.seconds.at(step)
            case "clock":
                return self.run.clock.at(step)
            case "epoch" if self.run.epochs.known:
                return self.run.epochs.at(step)
            case "epoch":
                return step / self.run.steps_per_epoch
            case _:
                return step


def heading(family: str) -> str:
    """A family as a heading: `Loss`, `accuracy`, `system/gpu0/percent`."""
    return "Loss" if family in ("", "loss") else family


def family_texts(trace: Trace) -> dict[str, str]:
    """The last values of every family, by name: `train 0.0912 · validation 0.1034`; a single one without its label."""
    values = trace.run.last_values
    grouped: dict[str, list[str]] = {family: [] for family in trace.families}
    for name in values:
        grouped[place_of(name).family].append(name)
    return {family: _texts(family, names, values) for family, names in grouped.items()}


def _texts(family: str, names: list[str], values: dict[str, float]) -> str:
    short = labels(names, family)
    if len(short) == 1:
        return format_fixed_width(values[names[0]]).strip()
    return " · ".join(f"{label} {format_fixed_width(values[name]).strip()}" for name, label in short.items())
