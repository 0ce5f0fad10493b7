"""Two results of one experiment as rows of characters: what differs, both drawn, every point. For app and command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from epochtop.engine.lab.comparison import Comparison, Condition, Held, Point, Result, compare
from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.experiment import Row as Measured
from epochtop.engine.lab.statistics import Figure, of_picture
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import UNKNOWN, format_age, format_quantity, plural
from epochtop.engine.protocol.spec import Invalid
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import BAD, EMPTY, GOOD, LABEL, QUIET, STRONG, TEXT, cut, labelled, row, wrapped
from epochtop.tui.lab.pictures.picture import picture_rows
from epochtop.tui.lab.pictures.points import cell, constant, heading, label, unit_of
from epochtop.tui.lab.pictures.tables import GAP, laid_out
from epochtop.tui.lab.result_rows import known
from epochtop.tui.state.experiment import ExperimentState

WHICH = "which result"
"""The column that tells rows of the two apart, in the picture of both."""
PLOT_ROWS = (12, 22)
"""Of a plot with its title and legend on a page: at least, at most."""
CURVES = 3
"""Of each result in one plot: twice as many have a look of their own."""
DIFFER = ("more", "less")
"""What a point is that differs."""
UNCERTAIN = (
    "the two were not measured in turn: whatever changed on the machine in between is in the ratios too. A difference is "
    "a ratio that is larger than the spreads of both together, from three rounds of each on"
)


def between(first: ExperimentState, second: ExperimentState) -> Comparison:
    """What is there of both. Raises Invalid for results that cannot be compared."""
    experiment = known(first)
    if experiment is None:
        raise Invalid("", f"{first.name} is of an experiment that this version does not know: {first.asked.name}")
    return compare(experiment, result(first), result(second))


def result(state: ExperimentState) -> Result:
    """One result as far as it has come."""
    return Result(
        name=state.name,
        created=state.record.created,
        asked=state.asked,
        spec=state.record.spec,
        rows=state.rows,
        outcome=state.outcome,
        devices=state.prepared.devices if state.prepared else (),
        machine=state.prepared.machine if state.prepared else {},
    )


def title(found: Comparison) -> str:
    """`Compared · 11c0 → 7f3a`."""
    return f"Compared · {_short(found, found.before)} → {_short(found, found.after)}"


def _short(found: Comparison, one: Result) -> str:
    return one.name.removeprefix(f"{found.experiment.name}-")


# --- sentences -----------------------------------------------------------------------------------------------------


def sides(found: Comparison, width: int, now: float) -> list[Row]:
    """Which two they are; `now` in Unix seconds."""
    pairs = (("Before", found.before), ("After", found.after))
    return [line for name, one in pairs for line in labelled(name, [_side(one, now)], width)]


def _side(one: Result, now: float) -> str:
    old = format_age(now - one.created)
    words = (one.name, old if old == "now" else f"{old} ago", one.outcome, "quick" if one.asked.quick else "")
    return " · ".join(filter(None, (*words, plural(len(one.rows), "row"))))


def conditions(found: Comparison, width: int) -> list[Row]:
    """What differs around them, before anything that differs in them."""
    if not found.conditions:
        return labelled("Conditions", ["the same, as far as they are recorded"], width, QUIET)
    parts = [_condition(one) for one in found.conditions]
    if any(point.outcome in DIFFER for one in found.pictures for point in one.points):
        parts.append(f"{'this' if len(parts) == 1 else 'any of these'} may be why points differ")
    rows: list[Row] = []
    for line in _packed(parts, width - LABEL):
        rows += wrapped(line, width, TEXT, ("" if rows else "Conditions").ljust(LABEL))
    return rows


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """As many in a line as there is room for, so that none is broken that fits into one."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _condition(one: Condition) -> str:
    before, after = (_fact(one.name, value) for value in (one.before, one.after))
    return f"{one.name.removesuffix('_bytes')} {before} → {after}"


def _fact(name: str, value: Cell) -> str:
    return UNKNOWN if value is None or value == "" else cell(value, unit_of(name))


def conclusion(found: Comparison, width: int) -> list[Row]:
    """What differs in them, in one sentence."""
    return labelled("Conclusion", [found.conclusion()], width, STRONG)


# --- points --------------------------------------------------------------------------------------------------------


def tables(found: Comparison, width: int) -> list[Row]:
    """Every point of every picture."""
    rows: list[Row] = []
    for one in found.pictures:
        rows += [EMPTY] if rows else []
        rows += [row((cut(_about(one), width), STRONG)), *table(one, width)]
    return rows


def _about(one: Held) -> str:
    labels = [point.labels for point in one.points]
    return " · ".join(filter(None, (one.picture.title, label(labels[0], constant(one.picture, labels)))))


def table(one: Held, width: int) -> list[Row]:
    """A line a point: before, after, the ratio with its spread, and what that is."""
    picture = one.picture
    same = constant(picture, [point.labels for point in one.points])
    names = [name for name in picture.series if name not in same]
    titles = ["", heading(picture.x_title or picture.x), "before", "after", "ratio", "", "spread"]
    lines = [titles, *(_line(one, point, names) for point in one.points)]
    for place in (WORD, SPREAD):  # the other columns are numbers, and stand to the right
        wide = max(len(line[place]) for line in lines)
        lines = [[*line[:place], line[place].ljust(wide), *line[place + 1 :]] for line in lines]
    kept = [place for place in range(len(titles)) if any(line[place].strip() for line in lines[1:])]
    cells = sum(GAP + max(len(line[place]) for line in lines) for place in kept) - GAP
    narrow = SPREAD in kept and cells > width
    if narrow:
        kept.remove(SPREAD)  # rather than a name that cannot be read
    titles, *texts = [[line[place] for place in kept] for line in lines]
    rows = laid_out(titles, texts, [place > 0 for place in kept], width)
    roles = {1 + place: _role(one, point) for place, point in enumerate(one.points)}
    rows = [row((line.text, roles[place])) if place in roles else line for place, line in enumerate(rows)]
    return [*rows, *([row(("not shown: spread", QUIET))] if narrow else [])]


WORD, SPREAD = 5, 6
"""Places in a line of words and of a spread."""


def _line(one: Held, point: Point, names: Sequence[str]) -> list[str]:
    picture, found = one.picture, point.ratio
    return [
        label(point.labels, names),
        cell(point.labels[picture.x], picture.x_unit) if picture.x else "",
        *(cell(side.median, picture.unit) if side else UNKNOWN for side in (point.before, point.after)),
        format_quantity(found.median, "×") if found else UNKNOWN,
        one.word(point.outcome),
        f"({format_quantity(found.low)} … {format_quantity(found.high)})" if found else "",
    ]


def _role(one: Held, point: Point) -> int:
    if point.outcome not in DIFFER:
        return TEXT if point.outcome == "same" else QUIET
    return {"slower": BAD, "faster": GOOD}.get(one.word(point.outcome), STRONG)


# --- a picture of both ---------------------------------------------------------------------------------------------


def drawn(found: Comparison, width: int, height: int) -> list[Row]:
    """The first picture with both results in it, those of one curve or bar side by side; nothing for a table."""
    one = next(iter(found.pictures), None)
    if one is None or one.picture.kind == "table":
        return []
    curves = list(dict.fromkeys(_curve(one.picture, point.labels) for point in one.points))
    shown = _most(one, curves) if one.picture.kind == "lines" else curves
    both = msgspec.structs.replace(one.picture, series=(*one.picture.series, WHICH))
    rows = picture_rows(both, _rows(found, one.picture, shown), (), width, height)
    if len(shown) < len(curves):
        words = f"{len(shown)} of {len(curves)} curves {'is' if len(shown) == 1 else 'are'} drawn; all are in the table"
        rows.append(row((cut(words, width), QUIET)))
    return rows


def _curve(picture: Picture, labels: Measured) -> tuple[Cell, ...]:
    return tuple(labels.get(name) for name in picture.series)


def _most(one: Held, curves: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """So many curves as can be told apart; of more, those with the most points that differ, if any does."""
    differ = dict.fromkeys(curves, 0)
    for point in one.points:
        differ[_curve(one.picture, point.labels)] += point.outcome in DIFFER
    if len(curves) <= CURVES:
        return curves
    kept = sorted((curve for curve in curves if differ[curve]), key=lambda curve: -differ[curve])[:CURVES]
    return [curve for curve in curves if curve in kept] or curves[:CURVES]


def _rows(found: Comparison, picture: Picture, curves: Sequence[tuple[Cell, ...]]) -> list[Measured]:
    results = {f"{name} {_short(found, one)}": one for name, one in (("before", found.before), ("after", found.after))}
    mine = {name: of_picture(picture, one.rows) for name, one in results.items()}
    return [
        {**values, WHICH: name}
        for curve in curves
        for name, rows in mine.items()
        for values in rows
        if _curve(picture, values) == curve
    ]


# --- all of it -----------------------------------------------------------------------------------------------------


def page(found: Comparison, width: int, height: int, now: float) -> list[Row]:
    """For a space of this size: what differs first, the plot in what is left of the first `height` rows, every point."""
    head = [*sides(found, width, now), *conditions(found, width), *conclusion(found, width)]
    least, most = PLOT_ROWS
    blocks = [
        head,
        drawn(found, width, max(least, min(most, height - len(head) - 2))),
        tables(found, width),
        labelled("Uncertain", [UNCERTAIN], width),
    ]
    return _apart(blocks)


def report(found: Comparison, width: int, now: float) -> list[Row]:
    """For a terminal, where the end is what one sees."""
    head = [*sides(found, width, now), *conditions(found, width)]
    end = [*conclusion(found, width), *labelled("Uncertain", [UNCERTAIN], width)]
    what = f"{found.experiment.name} · {found.experiment.title}"
    return _apart([[row((cut(what, width), STRONG)), *head], tables(found, width), end])


def _apart(blocks: Sequence[list[Row]]) -> list[Row]:
    return [line for block in blocks if block for line in (*block, EMPTY)][:-1]


def as_object(found: Comparison) -> dict[str, Any]:
    """Everything as one object, for `--json`."""
    return {
        "experiment": found.experiment.name,
        "before": _told(found.before),
        "after": _told(found.after),
        "conditions": found.conditions,
        "pictures": [
            {
                "title": one.picture.title,
                "unit": one.picture.unit,
                "points": [_point(one, point) for point in one.points],
                "conclusion": one.conclusion(),
            }
            for one in found.pictures
        ],
        "conclusion": found.conclusion(),
    }


def _told(one: Result) -> dict[str, Any]:
    return {
        "run": one.name,
        "created": one.created,
        "outcome": one.outcome,
        "quick": one.asked.quick,
        "rows": len(one.rows),
    }


def _point(one: Held, point: Point) -> dict[str, Any]:
    figures: dict[str, Figure | None] = {"before": point.before, "after": point.after, "ratio": point.ratio}
    return {"labels": point.labels, **figures, "outcome": one.word(point.outcome)}
