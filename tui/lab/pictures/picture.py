"""A picture of an experiment as rows of characters, of any kind and from any rows."""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.measurements import Row as Measured
from epochtop.engine.lab.statistics import of_picture
from epochtop.engine.protocol.experiments import Line
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import QUIET, STRONG, cleaned, cut, row
from epochtop.tui.lab.pictures.bars import bars
from epochtop.tui.lab.pictures.lines import lines
from epochtop.tui.lab.pictures.points import series, subject
from epochtop.tui.lab.pictures.tables import medians, table
from epochtop.tui.lab.pictures.timeline import timeline

MOST = 60
"""Most rows of a picture without a fixed height."""


def picture_rows(
    picture: Picture, rows: Sequence[Measured], computed: Sequence[Line], width: int, height: int
) -> list[Row]:
    """The title and the drawing in `width` cells. A plot has `height` rows with its title; other kinds as many as they need."""
    about = subject(picture, rows)
    title = row((cut(f"{picture.title}{f' · {about}' if about else ''}", width), STRONG))
    drawn = _drawn(picture, rows, computed, width, height - 1)
    if not drawn:
        return [title, row(("nothing was measured", QUIET))]
    left_out = len(drawn) - MOST
    visible = [Row(cleaned(text[:width]), roles[:width]) for text, roles in drawn[:MOST]]
    return [title, *visible, *([row((f"… {left_out} more", QUIET))] if left_out > 0 else [])]


def _drawn(picture: Picture, rows: Sequence[Measured], computed: Sequence[Line], width: int, height: int) -> list[Row]:
    matching = of_picture(picture, rows)
    match picture.kind:
        case _ if not matching:
            return []
        case "lines":
            return lines(picture, series(picture, rows), computed, width, height)
        case "bars":
            return bars(picture, series(picture, rows), width)
        case "timeline":
            return timeline(picture, matching, width)
        case "table":
            return table(picture, rows, width)


def figures(picture: Picture, rows: Sequence[Measured], width: int) -> list[Row]:
    """The medians and spreads behind a plot; other kinds of pictures include them."""
    return medians(picture, series(picture, rows), width) if picture.kind == "lines" and rows else []
