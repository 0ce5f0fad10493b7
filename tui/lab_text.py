"""An experiment's result as lines of text: its rows as medians, and the verdict."""

from __future__ import annotations

from engine.lab.catalog import find
from engine.lab.contract import Picture, Row
from engine.lab.figures import grouped, quantity, with_spread
from tui.lab_state import LabState


def report(state: LabState, color: bool) -> list[str]:
    """Everything there is to say at its end."""
    lines = []
    for picture in find(state.asked.name).pictures:
        lines += ["", picture.title, *table(picture, state.rows)]
    return [*lines, *verdict(state)]


def table(picture: Picture, rows: list[Row]) -> list[str]:
    """The points of a picture, one a line: median and spread."""
    mine = [row for row in rows if all(row.get(name) == value for name, value in picture.where.items())]
    names = (*picture.series, *filter(None, (picture.x,)))
    found = grouped(mine, names, picture.y)
    cells = [
        tuple(quantity(value, picture.x_unit) if isinstance(value, int | float) else str(value or "") for value in key)
        for key in found
    ]
    widths = [max(map(len, column), default=0) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(text.rjust(width) for text, width in zip(cell, widths, strict=True))
        + "  "
        + with_spread(figure, picture.unit)
        for cell, figure in zip(cells, found.values(), strict=True)
    ]


def verdict(state: LabState) -> list[str]:
    """The verdict in sentences."""
    if state.concluded is None:
        return []
    said = state.concluded.verdict
    return [
        "",
        said.finding,
        *(f"  · {line}" for line in said.evidence),
        f"Next: {said.next_step}",
        f"Uncertain: {said.uncertainty}",
        *(f"Not seen: {line}" for line in state.concluded.cannot_see),
    ]
