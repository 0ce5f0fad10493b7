"""Where the charts of the grid go: its shape, the order of families, groups, pages and boxes.

Pure arithmetic and functions of names. Never imports a widget.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log
from typing import NamedTuple


class Shape(NamedTuple):
    """Rows and columns of the grid."""

    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Number of charts on a page."""
        return self.rows * self.columns


class Box(NamedTuple):
    """The cells of one chart in the grid."""

    left: int
    top: int
    width: int
    height: int
    axis: bool
    """Whether the x axis is labeled: in the lowest chart of each column."""


SHAPES = (
    (110, 28, Shape(4, 3)),
    (60, 18, Shape(2, 2)),
    (60, 0, Shape(1, 2)),
    (0, 18, Shape(2, 1)),
    (0, 0, Shape(1, 1)),
)
"""Width and height from which on a page has this shape at most. The first one that fits counts."""
ASPECT = 3.5
"""Width of a good chart in cells, divided by its height."""
GAP = 1
"""Blank columns between charts."""
SYSTEM = "system"
"""Group of the series that stand below the loss."""


def largest_shape(width: int, height: int) -> Shape:
    """The shape of a full page in a region of this size."""
    return next(shape for least_width, least_height, shape in SHAPES if width >= least_width and height >= least_height)


def shape_of(count: int, width: int, height: int) -> Shape:
    """The shape of a page for `count` charts: at most the largest one, as small as possible, with charts of a good shape."""
    largest = largest_shape(width, height)
    if count >= largest.size:
        return largest
    fitting = [
        Shape(rows, columns)
        for rows in range(1, largest.rows + 1)
        for columns in range(1, largest.columns + 1)
        if rows * columns >= count
    ]
    return min(
        fitting, key=lambda shape: (shape.size, abs(log(width / shape.columns / (height / shape.rows) / ASPECT)))
    )


def group_of(family: str) -> str:
    """The group of a family: the first part of its path; empty for a name without a path."""
    first, slash, _ = family.partition("/")
    return first if slash else ""


def groups(families: Sequence[str]) -> list[str]:
    """All groups, in the order of their first family."""
    return list(dict.fromkeys(map(group_of, families)))


def arranged(families: Sequence[str], shape: Shape) -> list[str]:
    """The families in the order of the grid: as they are, but system series stand below the loss on the first page."""
    system = [family for family in families if group_of(family) == SYSTEM]
    if shape.rows < 2 or shape.columns < 2 or not system or not _is_loss(families[0]):
        return list(families)
    below = system[: shape.rows - 1]
    order = [family for family in families if family not in below]
    for row, family in enumerate(below, 1):
        order.insert(row * shape.columns, family)
    return order


def _is_loss(family: str) -> bool:
    return "loss" in family.rpartition("/")[2].lower()


def page_count(count: int, shape: Shape) -> int:
    """Number of pages for `count` charts, at least 1."""
    return max(1, ceil(count / shape.size))


def boxes(count: int, shape: Shape, width: int, height: int) -> list[Box]:
    """The boxes of the `count` charts of a page, by rows. Charts of a column have the same width."""
    wide, tall = (width - GAP * (shape.columns - 1)) // shape.columns, (height - 2) // shape.rows
    placed = []
    for place in range(count):
        row, column = divmod(place, shape.columns)
        left, top = column * (wide + GAP), row * tall
        last_row, axis = row == shape.rows - 1, place + shape.columns >= count
        bottom = height if last_row else top + tall + (2 if axis else 0)
        right = width if column == shape.columns - 1 else left + wide
        placed.append(Box(left, top, right - left, bottom - top, axis))
    return placed
