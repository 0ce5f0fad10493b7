"""The comparison of two results as rows of cells: differences, a plot of both, all points. For app and command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from epochtop.engine.lab.comparison import ComparedPoint, Comparison, Condition, PictureComparison, Result, compare
from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.measurements import Row as Measured
from epochtop.engine.lab.statistics import Figure, of_picture
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import UNKNOWN, format_age, format_quantity, plural
from epochtop.engine.protocol.spec import Invalid
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import BAD, EMPTY, GOOD, LABEL, QUIET, STRONG, TEXT, cut, labeled, row, wrapped
from epochtop.tui.lab.pictures.picture import picture_rows
from epochtop.tui.lab.pictures.points import cell, constant, heading, label, unit_of
from epochtop.tui.lab.pictures.tables import GAP, laid_out
from epochtop.tui.lab.result_rows import known
from epochtop.tui.state.experiment import ExperimentState

WHICH = "which result"
"""The column that separates the rows of the two results in a common picture."""
PLOT_ROWS = (12, 22)
"""Fewest and most rows of a plot with its title and legend."""
CURVES = 3
"""Most curves of one result in a plot: twice as many have distinct styles."""
DIFFER = ("more", "less")
"""Outcomes of points that differ."""
UNCERTAIN = (
    "the two results were not measured in alternation, so the ratios include changes of the machine in between. A ratio "
    "counts as a difference if it exceeds the spreads of both results, with at least three rounds each"
)


def between(first: ExperimentState, second: ExperimentState) -> Comparison:
    """The comparison of two results. Raises Invalid if they cannot be compared."""
    experiment = known(first)
    if experiment is None:
        raise Invalid("", f"{first.name}: this version does not know the experiment {first.asked.name}")
    return compare(experiment, result(first), result(second))


def result(state: ExperimentState) -> Result:
    """A result with the rows it has so far."""
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


def title(comparison: Comparison) -> str:
    """`Compared · 11c0 → 7f3a`."""
    return f"Compared · {_short(comparison, comparison.before)} → {_short(comparison, comparison.after)}"


def _short(comparison: Comparison, one: Result) -> str:
    return one.name.removeprefix(f"{comparison.experiment.name}-")


# --- sentences -----------------------------------------------------------------------------------------------------


def sides(comparison: Comparison, width: int, now: float) -> list[Row]:
    """The two results; `now` in Unix seconds."""
    pairs = (("Before", comparison.before), ("After", comparison.after))
    return [line for name, one in pairs for line in labeled(name, [_side(one, now)], width)]


def _side(one: Result, now: float) -> str:
    old = format_age(now - one.created)
    words = (one.name, old if old == "now" else f"{old} ago", one.outcome, "quick" if one.asked.quick else "")
    return " · ".join(filter(None, (*words, plural(len(one.rows), "row"))))


def conditions(comparison: Comparison, width: int) -> list[Row]:
    """Differences in the conditions of the measurements."""
    if not comparison.conditions:
        return labeled("Conditions", ["the same, as far as recorded"], width, QUIET)
    parts = [_condition(one) for one in comparison.conditions]
    if any(point.outcome in DIFFER for one in comparison.pictures for point in one.points):
        parts.append(f"{'this' if len(parts) == 1 else 'any of these'} may explain the differences")
    rows: list[Row] = []
    for line in _packed(parts, width - LABEL):
        rows += wrapped(line, width, TEXT, ("" if rows else "Conditions").ljust(LABEL))
    return rows


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """Parts packed into lines, without breaking a part that fits into one line."""
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


def conclusion(comparison: Comparison, width: int) -> list[Row]:
    """The differences between the results, in one sentence."""
    return labeled("Conclusion", [comparison.conclusion()], width, STRONG)


# --- points --------------------------------------------------------------------------------------------------------


def tables(comparison: Comparison, width: int) -> list[Row]:
    """All points of all pictures."""
    rows: list[Row] = []
    for one in comparison.pictures:
        rows += [EMPTY] if rows else []
        rows += [row((cut(_about(one), width), STRONG)), *table(one, width)]
    return rows


def _about(one: PictureComparison) -> str:
    labels = [point.labels for point in one.points]
    return " · ".join(filter(None, (one.picture.title, label(labels[0], constant(one.picture, labels)))))


def table(one: PictureComparison, width: int) -> list[Row]:
    """One line per point: before, after, the ratio with its spread, and the outcome."""
    picture = one.picture
    same = constant(picture, [point.labels for point in one.points])
    names = [name for name in picture.series if name not in same]
    titles = ["", heading(picture.x_title or picture.x), "before", "after", "ratio", "", "spread"]
    lines = [titles, *(_line(one, point, names) for point in one.points)]
    for place in (WORD, SPREAD):  # the other columns are numbers, aligned right
        wide = max(len(line[place]) for line in lines)
        lines = [[*line[:place], line[place].ljust(wide), *line[place + 1 :]] for line in lines]
    columns = [place for place in range(len(titles)) if any(line[place].strip() for line in lines[1:])]
    cells = sum(GAP + max(len(line[place]) for line in lines) for place in columns) - GAP
    narrow = SPREAD in columns and cells > width
    if narrow:
        columns.remove(SPREAD)  # rather than an unreadable name
    titles, *texts = [[line[place] for place in columns] for line in lines]
    rows = laid_out(titles, texts, [place > 0 for place in columns], width)
    roles = {1 + place: _role(one, point) for place, point in enumerate(one.points)}
    rows = [row((line.text, roles[place])) if place in roles else line for place, line in enumerate(rows)]
    return [*rows, *([row(("not shown: spread", QUIET))] if narrow else [])]


WORD, SPREAD = 5, 6
"""Columns of the outcome and of the spread."""


def _line(one: PictureComparison, point: ComparedPoint, names: Sequence[str]) -> list[str]:
    picture, ratio = one.picture, point.ratio
    return [
        label(point.labels, names),
        cell(point.labels[picture.x], picture.x_unit) if picture.x else "",
        *(cell(side.median, picture.unit) if side else UNKNOWN for side in (point.before, point.after)),
        format_quantity(ratio.median, "×") if ratio else UNKNOWN,
        one.word(point.outcome),
        f"({format_quantity(ratio.low)} … {format_quantity(ratio.high)})" if ratio else "",
    ]


def _role(one: PictureComparison, point: ComparedPoint) -> int:
    if point.outcome not in DIFFER:
        return TEXT if point.outcome == "same" else QUIET
    return {"slower": BAD, "faster": GOOD}.get(one.word(point.outcome), STRONG)


# --- a picture of both ---------------------------------------------------------------------------------------------


def drawn(comparison: Comparison, width: int, height: int) -> list[Row]:
    """The first picture with both results in it, matching curves or bars next to each other; nothing for a table."""
    one = next(iter(comparison.pictures), None)
    if one is None or one.picture.kind == "table":
        return []
    curves = list(dict.fromkeys(_curve(one.picture, point.labels) for point in one.points))
    selected = _most(one, curves) if one.picture.kind == "lines" else curves
    both = msgspec.structs.replace(one.picture, series=(*one.picture.series, WHICH))
    rows = picture_rows(both, _rows(comparison, one.picture, selected), (), width, height)
    if len(selected) < len(curves):
        verb = "is" if len(selected) == 1 else "are"
        words = f"{len(selected)} of {len(curves)} curves {verb} drawn; the table has all of them"
        rows.append(row((cut(words, width), QUIET)))
    return rows


def _curve(picture: Picture, labels: Measured) -> tuple[Cell, ...]:
    return tuple(labels.get(name) for name in picture.series)


def _most(one: PictureComparison, curves: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """As many curves as have distinct styles: those with the most differences, or the first ones if there are none."""
    differ = dict.fromkeys(curves, 0)
    for point in one.points:
        differ[_curve(one.picture, point.labels)] += point.outcome in DIFFER
    if len(curves) <= CURVES:
        return curves
    most = sorted((curve for curve in curves if differ[curve]), key=lambda curve: -differ[curve])[:CURVES]
    return [curve for curve in curves if curve in most] or curves[:CURVES]


def _rows(comparison: Comparison, picture: Picture, curves: Sequence[tuple[Cell, ...]]) -> list[Measured]:
    results = {
        f"{name} {_short(comparison, one)}": one
        for name, one in (("before", comparison.before), ("after", comparison.after))
    }
    rows_of = {name: of_picture(picture, one.rows) for name, one in results.items()}
    return [
        {**values, WHICH: name}
        for curve in curves
        for name, rows in rows_of.items()
        for values in rows
        if _curve(picture, values) == curve
    ]


# --- all of it -----------------------------------------------------------------------------------------------------


def page(comparison: Comparison, width: int, height: int, now: float) -> list[Row]:
    """The comparison for the app: differences, a plot in the rest of the first `height` rows, all points."""
    head = [*sides(comparison, width, now), *conditions(comparison, width), *conclusion(comparison, width)]
    least, most = PLOT_ROWS
    blocks = [
        head,
        drawn(comparison, width, max(least, min(most, height - len(head) - 2))),
        tables(comparison, width),
        labeled("Uncertain", [UNCERTAIN], width),
    ]
    return _apart(blocks)


def report(comparison: Comparison, width: int, now: float) -> list[Row]:
    """The comparison for a terminal: the conclusion comes last, where it stays visible."""
    head = [*sides(comparison, width, now), *conditions(comparison, width)]
    end = [*conclusion(comparison, width), *labeled("Uncertain", [UNCERTAIN], width)]
    what = f"{comparison.experiment.name} · {comparison.experiment.title}"
    return _apart([[row((cut(what, width), STRONG)), *head], tables(comparison, width), end])


def _apart(blocks: Sequence[list[Row]]) -> list[Row]:
    return [line for block in blocks if block for line in (*block, EMPTY)][:-1]


def as_object(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one object, for `--json`."""
    return {
        "experiment": comparison.experiment.name,
        "before": _result_object(comparison.before),
        "after": _result_object(comparison.after),
        "conditions": comparison.conditions,
        "pictures": [
            {
                "title": one.picture.title,
                "unit": one.picture.unit,
                "points": [_point(one, point) for point in one.points],
                "conclusion": one.conclusion(),
            }
            for one in comparison.pictures
        ],
        "conclusion": comparison.conclusion(),
    }


def _result_object(one: Result) -> dict[str, Any]:
    return {
        "run": one.name,
        "created": one.created,
        "outcome": one.outcome,
        "quick": one.asked.quick,
        "rows": len(one.rows),
    }


def _point(one: PictureComparison, point: ComparedPoint) -> dict[str, Any]:
    figures: dict[str, Figure | None] = {"before": point.before, "after": point.after, "ratio": point.ratio}
    return {"labels": point.labels, **figures, "outcome": one.word(point.outcome)}
