"""Files of what the chart shows, beside each other, never over another file."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from epochtop.tui.chart.export import export_csv, export_svg
from epochtop.tui.chart.loss_chart import LossChart


def save_shown(chart: LossChart, folder: Path, name: str) -> tuple[Path, Path]:
    """Write `<name>.svg` and `<name>.csv` into `folder`, numbered where they exist. Raises OSError."""
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    for number in count(1):
        tail = "" if number == 1 else f"-{number}"
        drawing, table = folder / f"{stem}{tail}.svg", folder / f"{stem}{tail}.csv"
        if not drawing.exists() and not table.exists():
            break
    drawing.write_text(export_svg(chart.trace, chart.view, chart.overlays, title=name), encoding="utf-8")
    table.write_text(export_csv(chart.trace, chart.view, chart.overlays), encoding="utf-8")
    return drawing, table
