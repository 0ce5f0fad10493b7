"""Two results of one experiment held against each other: under which conditions each was measured, and every point.

They were measured at two times and not in turn, so nothing pairs their rounds, and whatever changed on the machine in
between is in the difference. Torch-free and pure: the screen compares too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from epochtop.engine.lab.experiment import Experiment, Picture, Row
from epochtop.engine.lab.statistics import Difference, Figure, figure, gathered, of_picture, percent, quantity
from epochtop.engine.protocol.experiments import Cell, ExperimentRequest
from epochtop.engine.protocol.fields import fields, parse, show, texts_of
from epochtop.engine.protocol.spec import Invalid, RunSpec

Outcome = Literal["more", "less", "same", "seldom", "unknown", "before", "after"]
"""Of a point: more or less than before · no difference · too seldom to tell · no ratio · measured before or after only."""
ENOUGH = 7
"""Rounds that quartiles should come from, as of `sampling.ROUNDS`."""
LOAD = 0.5
"""Processors by which the load must differ to be told: it is never twice the same."""
BARELY = 1.005
"""A ratio below it is told as a percentage: with three digits it would be 1."""


@dataclass(frozen=True)
class Result:
    """What there is of one result, as far as it has come."""

    name: str
    """The id of its run."""
    created: float
    """Unix time in seconds."""
    asked: ExperimentRequest
    spec: RunSpec
    rows: Sequence[Row]
    outcome: str = "finished"
    devices: tuple[str, ...] = ()
    machine: Mapping[str, Cell] = field(default_factory=dict)
    """Of `Prepared`; empty before that."""


@dataclass(frozen=True)
class Condition:
    """Something that differs between two results and is not what they measured."""

    name: str
    before: Cell
    after: Cell


@dataclass(frozen=True)
class Point:
    """Rows of both results that agree in the columns of a picture's series and x."""

    labels: Row
    before: Figure | None
    after: Figure | None

    @property
    def ratio(self) -> Figure | None:
        """After to before; None where one of them is missing or not above 0."""
        return ratio(self.before, self.after) if self.before and self.after else None

    @property
    def outcome(self) -> Outcome:
        """What can be said of it. Distinct is what is more than the spreads of both results together."""
        if self.before is None or self.after is None:
            return "before" if self.before else "after"
        if min(self.before.count, self.after.count) < 3:
            return "seldom"
        found = self.ratio
        if found is None:
            return "same" if self.before.median == self.after.median else "unknown"
        if not Difference(found).distinct:
            return "same"
        return "more" if found.median > 1 else "less"


def side(values: Sequence[float]) -> Figure:
    """The median of one result's rounds with its quartiles, or with the extremes where there are fewer than ENOUGH."""
    found = figure(values)
    return found if found.count >= ENOUGH else Figure(found.median, min(values), max(values), found.count)


def ratio(before: Figure, after: Figure) -> Figure | None:
    """Of the medians, with the least and the most that the spreads allow; None where a value is not above 0.

    Its spread is thus that of both results together, as if both had been off at once. A ratio that is larger than that
    has quartiles that do not overlap. Planted noise alone passes for a difference at fewer than 2 of 100 points, with 3
    rounds or more; noise that differs between the two times is in no spread.
    """
    if min(before.low, after.low) <= 0:
        return None
    least, most = after.low / before.high, after.high / before.low
    return Figure(after.median / before.median, least, most, min(before.count, after.count))


# --- one picture -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """All points of a picture, of both results."""

    picture: Picture
    points: tuple[Point, ...]

    def word(self, outcome: Outcome) -> str:
        """In this picture's words: more seconds are `slower`, more a second is `faster`."""
        if outcome not in ("more", "less"):
            return _WORDS[outcome]
        unit = self.picture.unit
        both = _OF_A_RATE if unit.endswith("/s") else _OF_A_UNIT.get(unit, ("higher", "lower"))
        return both[outcome == "less"]

    def conclusion(self) -> str:
        """`3 of 12 points are slower by up to 1.4 ×, the others show no difference`."""
        by = {outcome: [point for point in self.points if point.outcome == outcome] for outcome in _PHRASES}
        both = sum(map(len, by.values()))
        said = {outcome: points for outcome, points in by.items() if points}
        parts = [
            f"{_who(len(points), both, first=not place, last=place == len(said) - 1)} {self._phrase(outcome, points)}"
            for place, (outcome, points) in enumerate(said.items())
        ]
        alone = [self._alone(outcome) for outcome in ("before", "after")]
        return ", ".join(filter(None, (*(parts or ["no point was measured in both"]), *alone)))

    def _phrase(self, outcome: Outcome, points: Sequence[Point]) -> str:
        one, several = _PHRASES[outcome]
        phrase = one if len(points) == 1 else several
        if outcome not in ("more", "less"):
            return phrase
        sizes = [abs(math.log(point.ratio.median)) for point in points if point.ratio]
        return f"{phrase} {self.word(outcome)} by {'up to ' if len(points) > 1 else ''}{_times(math.exp(max(sizes)))}"

    def _alone(self, outcome: Outcome) -> str:
        found = sum(point.outcome == outcome for point in self.points)
        return f"{found} {'point is' if found == 1 else 'points are'} in the result {outcome} only" if found else ""


_OF_A_UNIT = {"s": ("slower", "faster"), "B": ("larger", "smaller")}
_OF_A_RATE = ("faster", "slower")
_WORDS: dict[Outcome, str] = {
    "same": "no difference",
    "seldom": "too seldom",
    "unknown": "no ratio",
    "before": "before only",
    "after": "after only",
}
_PHRASES: dict[Outcome, tuple[str, str]] = {
    "more": ("is", "are"),
    "less": ("is", "are"),
    "same": ("shows no difference", "show no difference"),
    "seldom": ("was measured too seldom to tell", "were measured too seldom to tell"),
    "unknown": ("has no ratio", "have no ratio"),
}


def _who(found: int, of: int, first: bool, last: bool) -> str:
    if first:
        every = "the only point" if of == 1 else "both points" if of == 2 else f"all {of} points"
        return every if found == of else f"{found} of {of} points"
    return f"{found}" if not last else "the others" if found > 1 else "the other"


def _times(ratio: float) -> str:
    return quantity(ratio, "×") if ratio >= BARELY else percent(ratio - 1)


def held(picture: Picture, before: Sequence[Row], after: Sequence[Row]) -> Held:
    """Every point that one of them has, in the order of its series and of x."""
    columns = (*picture.series, *filter(None, (picture.x,)))
    sides = [gathered(of_picture(picture, rows), columns, picture.y) for rows in (before, after)]
    keys = list(dict.fromkeys(key for found in sides for key in found))
    curves = {curve: place for place, curve in enumerate(dict.fromkeys(key[: len(picture.series)] for key in keys))}

    def place(key: tuple[Cell, ...]) -> tuple[int, float]:
        x = key[-1] if picture.x else None
        return curves[key[: len(picture.series)]], x if isinstance(x, int | float) else math.inf

    figures = [{key: side(values) for key, values in found.items()} for found in sides]
    return Held(
        picture,
        tuple(
            Point(dict(zip(columns, key, strict=True)), *(found.get(key) for found in figures))
            for key in sorted(keys, key=place)
        ),
    )


def comparable(experiment: Experiment) -> list[Picture]:
    """Its pictures of points. One that shows the rows of another again, in another form or unit, is left out."""
    found: list[Picture] = []
    for picture in experiment.pictures:
        again = any(
            picture.where == one.where and (picture.y == one.y or (picture.series, picture.x) == (one.series, one.x))
            for one in found
        )
        if picture.y and picture.kind != "timeline" and not again:
            found.append(picture)
    return found


# --- two results -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two results of one experiment; `before` is the one that was begun first."""

    experiment: Experiment
    before: Result
    after: Result
    conditions: tuple[Condition, ...]
    pictures: tuple[Held, ...]
    """Those of which there are rows."""

    def conclusion(self) -> str:
        """What differs, picture by picture, in one sentence."""
        if not self.pictures:
            return "nothing has been measured that could be compared"
        told = [(one.picture.title, one.conclusion()) for one in self.pictures]
        return "; ".join(f"{title}: {words}" if len(told) > 1 else words for title, words in told)


def compare(experiment: Experiment, first: Result, second: Result) -> Comparison:
    """What is there of both, whichever comes first. Raises Invalid for one of another experiment, or one with itself."""
    for result in (first, second):
        if result.asked.name != experiment.name:
            raise Invalid(
                "",
                f"{first.name} is a result of {first.asked.name}, {second.name} of {second.asked.name}: "
                "only two of one experiment can be compared",
            )
    if first.name == second.name:
        raise Invalid("", f"{first.name} cannot be compared with itself")
    before, after = sorted((first, second), key=lambda result: result.created)
    found = [held(picture, before.rows, after.rows) for picture in comparable(experiment)]
    return Comparison(
        experiment, before, after, conditions(experiment, before, after), tuple(one for one in found if one.points)
    )


def conditions(experiment: Experiment, before: Result, after: Result) -> tuple[Condition, ...]:
    """What differs of the machine, the devices, and what was asked for. A load counts from half a processor on."""
    sides = [_asked(experiment, result) for result in (before, after)]
    if before.machine and after.machine:
        known = [{**result.machine, "devices": ", ".join(result.devices)} for result in (before, after)]
        sides = [{**facts, **asked} for facts, asked in zip(known, sides, strict=True)]
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


def _asked(experiment: Experiment, result: Result) -> dict[str, Cell]:
    """Fields of the experiment and of its job as one types them; a run's name changes nothing."""
    kind, said = experiment.fields, result.asked.fields
    own = {about.name: _plain(about.name, said.get(about.name, show(about.default)), kind) for about in fields(kind)}
    job = {name: text for name, text in texts_of(result.spec).items() if name != "name"}
    return {"quick": show(result.asked.quick), **own, **(job if experiment.job is not None else {})}


def _plain(name: str, text: str, kind: type[msgspec.Struct]) -> str:
    """`1e4` and `10,000` are the same."""
    try:
        return show(parse(name, text, kind))
    except Invalid:  # from a version with other bounds
        return text
