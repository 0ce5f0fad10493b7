"""Two results of one experiment compared: their conditions, and each point of their pictures.

The results were measured at different times, so their rounds are not pairs, and the difference includes any change of
the machine in between. Pure, and imports no torch: the screen compares too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from epochtop.engine.lab.differences import Difference
from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import Figure, figure, gathered, of_picture
from epochtop.engine.protocol.experiments import Cell, ExperimentRequest
from epochtop.engine.protocol.fields import fields, parse, show, texts_of
from epochtop.engine.protocol.quantities import format_percent, format_quantity
from epochtop.engine.protocol.spec import Invalid, RunSpec

Outcome = Literal["more", "less", "same", "seldom", "unknown", "before", "after"]
"""What a point shows: more or less than before · no difference · too few rounds · no ratio · before or after only."""
ENOUGH = 7
"""Rounds needed for quartiles, as in `sampling.ROUNDS`."""
LOAD = 0.5
"""Difference in load, in processors, that is reported: the load is never exactly the same twice."""
BARELY = 1.005
"""A ratio below it is shown as a percentage: with three digits it would be 1."""


@dataclass(frozen=True)
class Result:
    """One result, complete or still running."""

    name: str
    """The run id."""
    created: float
    """Unix time in seconds."""
    asked: ExperimentRequest
    spec: RunSpec
    rows: Sequence[Row]
    outcome: str = "finished"
    devices: tuple[str, ...] = ()
    machine: Mapping[str, Cell] = field(default_factory=dict)
    """The machine facts of the event `Prepared`; empty before it."""


@dataclass(frozen=True)
class Condition:
    """A circumstance that differs between two results, such as the machine or a setting."""

    name: str
    before: Cell
    after: Cell


@dataclass(frozen=True)
class ComparedPoint:
    """The rows of both results with the same values in a picture's series and x."""

    labels: Row
    before: Figure | None
    after: Figure | None

    @property
    def ratio(self) -> Figure | None:
        """After over before; None if one of them is missing or not above 0."""
        return ratio(self.before, self.after) if self.before and self.after else None

    @property
    def outcome(self) -> Outcome:
        """What it shows. A difference counts if it exceeds the spreads of both results together."""
        if self.before is None or self.after is None:
            return "before" if self.before else "after"
        if min(self.before.count, self.after.count) < 3:
            return "seldom"
        change = self.ratio
        if change is None:
            return "same" if self.before.median == self.after.median else "unknown"
        if not Difference(change).distinct:
            return "same"
        return "more" if change.median > 1 else "less"


def side(values: Sequence[float]) -> Figure:
    """The median of one result's rounds with its quartiles, or with the extremes if there are fewer than ENOUGH."""
    quartiles = figure(values)
    if quartiles.count >= ENOUGH:
        return quartiles
    return Figure(quartiles.median, min(values), max(values), quartiles.count)


def ratio(before: Figure, after: Figure) -> Figure | None:
    """The ratio of the medians, with an interval as wide as both spreads on either side; None if a value is not above 0.

    An interval that excludes 1 means that the quartiles do not overlap. With 3 rounds or more, planted noise alone passes
    for a difference at fewer than 2 of 100 points. Noise that differs between the two times is in no spread.
    """
    if min(before.low, after.low) <= 0:
        return None
    change = after.median / before.median
    spread = (after.high / after.low) * (before.high / before.low)
    return Figure(change, change / spread, change * spread, min(before.count, after.count))


# --- one picture -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureComparison:
    """The points of one picture from both results."""

    picture: Picture
    points: tuple[ComparedPoint, ...]

    def word(self, outcome: Outcome) -> str:
        """The outcome in this picture's words: more seconds are `slower`, more per second is `faster`."""
        if outcome not in ("more", "less"):
            return _WORDS[outcome]
        unit = self.picture.unit
        words = _RATE_WORDS if unit.endswith("/s") else _UNIT_WORDS.get(unit, ("higher", "lower"))
        return words[outcome == "less"]

    def conclusion(self) -> str:
        """`3 of 12 points are slower by up to 1.4 ×, the others show no difference`."""
        groups = {outcome: [point for point in self.points if point.outcome == outcome] for outcome in _PHRASES}
        total = sum(map(len, groups.values()))
        groups = {outcome: points for outcome, points in groups.items() if points}
        parts = [
            f"{_subject(len(points), total, first=not place, last=place == len(groups) - 1)} {self._phrase(outcome, points)}"
            for place, (outcome, points) in enumerate(groups.items())
        ]
        unpaired = [self._unpaired(outcome) for outcome in ("before", "after")]
        return ", ".join(filter(None, (*(parts or ["no point was measured in both"]), *unpaired)))

    def _phrase(self, outcome: Outcome, points: Sequence[ComparedPoint]) -> str:
        one, several = _PHRASES[outcome]
        phrase = one if len(points) == 1 else several
        if outcome not in ("more", "less"):
            return phrase
        sizes = [abs(math.log(point.ratio.median)) for point in points if point.ratio]
        return f"{phrase} {self.word(outcome)} by {'up to ' if len(points) > 1 else ''}{_times(math.exp(max(sizes)))}"

    def _unpaired(self, outcome: Outcome) -> str:
        count = sum(point.outcome == outcome for point in self.points)
        return f"{count} {'point is' if count == 1 else 'points are'} only in the result {outcome}" if count else ""


_UNIT_WORDS = {"s": ("slower", "faster"), "B": ("larger", "smaller")}
_RATE_WORDS = ("faster", "slower")
_WORDS: dict[Outcome, str] = {
    "same": "no difference",
    "seldom": "too few rounds",
    "unknown": "no ratio",
    "before": "before only",
    "after": "after only",
}
_PHRASES: dict[Outcome, tuple[str, str]] = {
    "more": ("is", "are"),
    "less": ("is", "are"),
    "same": ("shows no difference", "show no difference"),
    "seldom": ("has too few rounds to tell", "have too few rounds to tell"),
    "unknown": ("has no ratio", "have no ratio"),
}


def _subject(count: int, total: int, first: bool, last: bool) -> str:
    if first:
        all_points = "the only point" if total == 1 else "both points" if total == 2 else f"all {total} points"
        return all_points if count == total else f"{count} of {total} points"
    return f"{count}" if not last else "the others" if count > 1 else "the other"


def _times(ratio: float) -> str:
    return format_quantity(ratio, "×") if ratio >= BARELY else format_percent(ratio - 1)


def compare_picture(picture: Picture, before: Sequence[Row], after: Sequence[Row]) -> PictureComparison:
    """The points that either result has, in the order of their series and of x."""
    columns = (*picture.series, *filter(None, (picture.x,)))
    sides = [gathered(of_picture(picture, rows), columns, picture.y) for rows in (before, after)]
    keys = list(dict.fromkeys(key for points in sides for key in points))
    curves = {curve: place for place, curve in enumerate(dict.fromkeys(key[: len(picture.series)] for key in keys))}

    def place(key: tuple[Cell, ...]) -> tuple[int, float]:
        x = key[-1] if picture.x else None
        return curves[key[: len(picture.series)]], x if isinstance(x, int | float) else math.inf

    figures = [{key: side(values) for key, values in points.items()} for points in sides]
    return PictureComparison(
        picture,
        tuple(
            ComparedPoint(dict(zip(columns, key, strict=True)), *(points.get(key) for points in figures))
            for key in sorted(keys, key=place)
        ),
    )


def comparable(experiment: Experiment) -> list[Picture]:
    """Its pictures of points, without those that show the same rows again in another form or unit."""
    pictures: list[Picture] = []
    for picture in experiment.pictures:
        again = any(
            picture.where == one.where and (picture.y == one.y or (picture.series, picture.x) == (one.series, one.x))
            for one in pictures
        )
        if picture.y and picture.kind != "timeline" and not again:
            pictures.append(picture)
    return pictures


# --- two results -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two results of one experiment; `before` is the one that started first."""

    experiment: Experiment
    before: Result
    after: Result
    conditions: tuple[Condition, ...]
    pictures: tuple[PictureComparison, ...]
    """The pictures that have rows."""

    def conclusion(self) -> str:
        """One sentence on the differences, picture by picture."""
        if not self.pictures:
            return "nothing was measured that can be compared"
        parts = [(one.picture.title, one.conclusion()) for one in self.pictures]
        return "; ".join(f"{title}: {words}" if len(parts) > 1 else words for title, words in parts)


def compare(experiment: Experiment, first: Result, second: Result) -> Comparison:
    """Compare two results, in either order. Raises Invalid for results of different experiments, or one with itself."""
    for result in (first, second):
        if result.asked.name != experiment.name:
            raise Invalid(
                "",
                f"{first.name} is a result of {first.asked.name}, {second.name} of {second.asked.name}: "
                "compare two results of the same experiment",
            )
    if first.name == second.name:
        raise Invalid("", f"{first.name} cannot be compared with itself")
    before, after = sorted((first, second), key=lambda result: result.created)
    pictures = [compare_picture(picture, before.rows, after.rows) for picture in comparable(experiment)]
    return Comparison(
        experiment, before, after, conditions(experiment, before, after), tuple(one for one in pictures if one.points)
    )


def conditions(experiment: Experiment, before: Result, after: Result) -> tuple[Condition, ...]:
    """Differences in the machine, the devices and the request. The load counts if it differs by LOAD or more."""
    sides = [_requested(experiment, result) for result in (before, after)]
    if before.machine and after.machine:
        machines = [{**result.machine, "devices": ", ".join(result.devices)} for result in (before, after)]
        sides = [{**facts, **requested} for facts, requested in zip(machines, sides, strict=True)]
    names = dict.fromkeys(name for facts in sides for name in facts)
    return tuple(
        Condition(name, *(facts.get(name) for facts in sides))
        for name in names
        if _differ(name, *(facts.get(name) for facts in sides))
    )


def _differ(name: str, before: Cell, after: Cell) -> bool:
    if name == "load" and isinstance(before, int | float) and isinstance(after, int | float):
        return abs(before - after) >= LOAD
    return before != after


def _requested(experiment: Experiment, result: Result) -> dict[str, Cell]:
    """Fields of the experiment and of its job as a user types them, without the run's name."""
    kind, texts = experiment.fields, result.asked.fields
    own = {about.name: _plain(about.name, texts.get(about.name, show(about.default)), kind) for about in fields(kind)}
    job = {name: text for name, text in texts_of(result.spec).items() if name != "name"}
    return {"quick": show(result.asked.quick), **own, **(job if experiment.job is not None else {})}


def _plain(name: str, text: str, kind: type[msgspec.Struct]) -> str:
    """The normal form of a value: `1e4` and `10,000` are the same."""
    try:
        return show(parse(name, text, kind))
    except Invalid:  # from a version with other bounds
        return text
