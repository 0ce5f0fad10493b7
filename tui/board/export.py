"""Files of what the board shows: a drawing (SVG) and a table (CSV) of the large chart, or of all charts of the page.

Never imports plotext.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from epochtop.tui.board.board import Board
from epochtop.tui.board.grid import Grid
from epochtop.tui.chart import export
from epochtop.tui.chart.trace import heading

GAP = 12
"""Pixels between charts."""


def save_board(board: Board, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.svg` and `<name>.csv` into `folder`, numbered if a file exists. Raises OSError."""
    if board.shows_grid:
        return export.save_files(folder, name, grid_svg(board.grid, name), grid_csv(board.grid))
    return export.save_chart(board.chart, folder, name)


def grid_svg(grid: Grid, title: str) -> str:
    """A drawing of the page: the charts in rows and columns, each with its title."""
    shape, view = grid.page.shape, grid.view
    wide, tall = export.WIDTH + GAP, export.HEIGHT + GAP
    parts = []
    for place, tile in enumerate(grid.tiles):
        row, column = divmod(place, shape.columns)
        drawing = export.export_svg(tile.trace, view, tile.overlays, title=heading(tile.family))
        where = f'<svg x="{column * wide}" y="{row * tall}" width="{export.WIDTH}" height="{export.HEIGHT}" '
        parts.append(drawing.replace("<svg ", where, 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {shape.columns * wide} {shape.rows * tall}">'
        f'<title>{escape(title)}</title>\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "".join(parts)
        + "</svg>\n"
    )


def grid_csv(grid: Grid) -> str:
    """The tables of all charts of the page below each other; a series is named after its chart and its rows."""
    lines = [export.HEADER]
    for tile in grid.tiles:
        table = export.export_csv(tile.trace, grid.view, tile.overlays, prefix=heading(tile.family))
        lines += table.splitlines()[1:]
    return "\n".join(lines) + "\n"
