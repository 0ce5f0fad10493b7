"""The rows that a picture shows, grouped into points, with names, numbers and units.

Pure functions of rows, for all kinds of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import Figure, figure, of_picture, value_of
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import format_quantity

_UNITS = {"seconds": "s", "s": "s", "bytes": "B", "percent": "%", "share": "%"}
"""Units of columns, by the last word of their names; a share is in percent."""


@dataclass(frozen=True)
class PicturePoint:
    """Rows with the same `x` and series."""

    x: Cell
    y: Figure


@dataclass(frozen=True)
class Series:
    """Points with one name."""

    name: str
    points: tuple[PicturePoint, ...]


def constant(picture: Picture, rows: Sequence[Row]) -> tuple[str, ...]:
    """Columns of the series with one value in all rows, but never all of the columns."""
    same = tuple(name for name in picture.series if len({str(row.get(name)) for row in rows}) < 2)
    return same if len(same) < len(picture.series) else same[:-1]


def subject(picture: Picture, rows: Sequence[Row]) -> str:
    """The values that all rows share, for a title: `cpu`."""
    matching = of_picture(picture, rows)
    return label(matching[0], constant(picture, matching)) if matching else ""


def label(row: Mapping[str, Cell], columns: Sequence[str]) -> str:
    """The values that identify a row, in words: `cpu plain`, `threads 4`."""
    return " ".join(filter(None, (_word(name, row.get(name)) for name in columns)))


def _word(name: str, value: Cell) -> str:
    if value is None or value == "":
        return ""
    return value if isinstance(value, str) else f"{heading(name)} {cell(value, unit_of(name))}"


def series(picture: Picture, rows: Sequence[Row]) -> list[Series]:
    """The series of a picture in order of appearance, with their points in the order of x."""
    matching = of_picture(picture, rows)
    names = [name for name in picture.series if name not in constant(picture, matching)]
    curves: dict[str, dict[Cell, list[float]]] = {}
    for row in matching:
        value = value_of(row, picture.y)
        if value is not None:
            x = row.get(picture.x) if picture.x else None
            curves.setdefault(label(row, names), {}).setdefault(x, []).append(value)
    return [
        Series(name, tuple(sorted((PicturePoint(x, figure(values)) for x, values in points.items()), key=_place)))
        for name, points in curves.items()
    ]


def _place(point: PicturePoint) -> tuple[float, str]:
    return (float(point.x), "") if isinstance(point.x, int | float) else (math.inf, "")


def heading(column: str) -> str:
    """A column's name for people, without its unit: `memory` for `memory_bytes`."""
    words = column.split("_")
    name_words = words[:-1] if len(words) > 1 and words[-1] in _UNITS else words
    return " ".join(name_words)


def unit_of(column: str) -> str:
    """The unit in a column's name."""
    return _UNITS.get(column.rsplit("_", 1)[-1], "")


def cell(value: Cell, unit: str) -> str:
    """A value of a row as text."""
    if isinstance(value, str):
        return value
    if value is not None and not unit and float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return format_quantity(value, unit)
