"""Tables of an experiment's rows: rows with the same keys become one line, with medians."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.measurements import Row as Measured
from epochtop.engine.lab.statistics import of_picture, value_of
from epochtop.engine.protocol.experiments import Cell
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import QUIET, TEXT, cut, row, shortened
from epochtop.tui.lab.pictures.bars import spread
from epochtop.tui.lab.pictures.points import Series, cell, heading, unit_of

GAP = 2
NARROWEST = 8
"""Cells below which words are not shortened further; instead, columns are left out."""


def table(picture: Picture, rows: Sequence[Measured], width: int) -> list[Row]:
    """The picture's columns with a heading, as many as fit."""
    matching = of_picture(picture, rows)
    columns = picture.columns or tuple(dict.fromkeys(name for line in matching for name in line))
    keys = [name for name in (*picture.series, picture.x) if name]
    lines = _merged(matching, keys) if keys else matching
    units = {name: picture.unit if name == picture.y and picture.unit else unit_of(name) for name in columns}
    texts = [[cell(line.get(name), units[name]) if name in line else "" for name in columns] for line in lines]
    numeric = [any(isinstance(line.get(name), int | float) for line in lines) for name in columns]
    return laid_out([heading(name) for name in columns], texts, numeric, width)


def _merged(rows: Sequence[Measured], keys: Sequence[str]) -> list[Measured]:
    """One row per group: its keys, the medians of numbers, and the last of other values."""
    groups: dict[tuple[Cell, ...], list[Measured]] = {}
    for line in rows:
        groups.setdefault(tuple(line.get(name) for name in keys), []).append(line)
    return [{name: _middle(group, name, keys) for name in _names(group)} for group in groups.values()]


def _names(group: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(name for line in group for name in line))


def _middle(group: Sequence[Measured], name: str, keys: Sequence[str]) -> Cell:
    numbers = [value for row in group if (value := value_of(row, name)) is not None]
    last = next(row[name] for row in reversed(group) if name in row)
    if name in keys or not numbers or isinstance(last, str):
        return last
    middle = statistics.median(numbers)
    return int(middle) if isinstance(last, int) and middle.is_integer() else middle


def medians(picture: Picture, series: Sequence[Series], width: int) -> list[Row]:
    """The points of a picture, one line each: series, x, median and spread."""
    points = [(one.name, point) for one in series for point in one.points]
    unit = picture.unit
    texts = [
        [
            name,
            "" if point.x is None else cell(point.x, picture.x_unit),
            cell(point.y.median, unit),
            spread(point.y, unit),
        ]
        for name, point in points
    ]
    x_title = heading(picture.x_title or picture.x)
    titles = ["", x_title, "median", "quartiles"]
    filled = [place for place in range(4) if any(line[place] for line in texts)]
    return laid_out(
        [titles[place] for place in filled],
        [[line[place] for place in filled] for line in texts],
        [place in (1, 2) for place in filled],
        width,
    )


def laid_out(titles: Sequence[str], texts: Sequence[Sequence[str]], numeric: Sequence[bool], width: int) -> list[Row]:
    """Columns as wide as necessary; first words are shortened, then the last columns are left out."""
    widths = [max(map(len, column)) for column in zip(titles, *texts, strict=True)]
    wordy = [place for place, number in enumerate(numeric) if not number]
    while _cells(widths) > width and wordy and max(widths[place] for place in wordy) > NARROWEST:
        widths[max(wordy, key=widths.__getitem__)] -= 1
    count = len(widths)
    while count > 1 and _cells(widths[:count]) > width:
        count -= 1
    lines = [
        row((cut(_line(line, widths[:count], numeric), width), QUIET if number == 0 else TEXT))
        for number, line in enumerate((titles, *texts))
    ]
    if count < len(widths):
        lines.append(row((cut(f"not shown: {', '.join(titles[count:])}", width), QUIET)))
    return lines


def _cells(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _line(texts: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    cells = [
        text.rjust(width) if number else shortened(text, width).ljust(width)
        for text, width, number in zip(texts, widths, numeric, strict=False)
    ]
    return (" " * GAP).join(cells)
