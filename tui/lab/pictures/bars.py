"""Bars of an experiment: one per series, with its median and spread."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.statistics import Figure
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import QUIET, TEXT, role_of, row, shortened
from epochtop.tui.lab.pictures.points import Series, cell

EIGHTHS = " ▏▎▍▌▋▊▉█"
LEAST = 6
"""Cells of the longest bar below which spreads are left out."""


def bars(picture: Picture, series: Sequence[Series], width: int) -> list[Row]:
    """A row per point; the longest bar fills the room."""
    named = [
        (" ".join(filter(None, (one.name, "" if point.x is None else cell(point.x, picture.x_unit)))), point.y, place)
        for place, one in enumerate(series)
        for point in one.points
    ]
    label_cells = min(max(map(len, (name for name, _, _ in named)), default=0), max(8, width // 3))
    values = [format_quantity(y.median, picture.unit) for _, y, _ in named]
    spreads = [spread(y, picture.unit) for _, y, _ in named]
    value_cells, spread_cells = max(map(len, values), default=0), max(map(len, spreads), default=0)
    room = width - label_cells - value_cells - 3
    if room - spread_cells - 2 < LEAST:
        spreads, spread_cells = [""] * len(spreads), 0
    room = max(1, room - (spread_cells + 2 if spread_cells else 0))
    shares = _shares([y.median for _, y, _ in named], picture.y_log)
    return [
        row(
            (shortened(name, label_cells).rjust(label_cells) + " ", TEXT),
            (bar(share, room).ljust(room), role_of(place)),
            (f" {value.rjust(value_cells)}", TEXT),
            (f"  {text}" if text else "", QUIET),
        )
        for (name, _, place), value, text, share in zip(named, values, spreads, shares, strict=True)
    ]


def spread(value: Figure, unit: str) -> str:
    """`60 µs … 63 µs`, or `once` for a single measurement."""
    return "once" if value.count < 2 else f"{format_quantity(value.low, unit)} … {format_quantity(value.high, unit)}"


def bar(share: float, cells: int) -> str:
    """A bar that fills a fraction of `cells`, in eighths of a cell; never empty for a positive fraction."""
    eighths = max(int(share > 0), round(min(1.0, max(0.0, share)) * cells * 8))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _shares(values: Sequence[float], log: bool) -> list[float]:
    positive = [value for value in values if value > 0]
    if not positive:
        return [0.0] * len(values)
    if not log:
        return [value / max(positive) for value in values]
    low, high = log10(min(positive)) - 0.3, log10(max(positive))
    return [(log10(value) - low) / (high - low) if value > 0 else 0.0 for value in values]
