"""A chart alone in an app, read as rows of characters."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp

from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot

from epochtop.engine.protocol.events import Evaluated, Losses
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.trace import Trace


class Host(App[None]):
    """An app with just a chart."""

    def compose(self) -> ComposeResult:
        yield LossChart(empty_text="No runs yet.")

    @property
    def chart(self) -> LossChart:
        return self.query_one(LossChart)


def losses(first_step: int, values: list[float], seconds: float = 1.0) -> Losses:
    packed = array("f", values).tobytes()
    return Losses(first_step=first_step, seconds=seconds, values=packed, reads=1, waited=0.0)


def evaluated(step: int, loss: float | None) -> Evaluated:
    return Evaluated(step=step, seconds=1.0, loss=loss, metric=0.9)


def falling(steps: int) -> list[float]:
    return [0.1 + exp(-step / 300) for step in range(steps)]


def text(chart: LossChart) -> list[str]:
    return [chart.render_line(y).text for y in range(chart.size.height)]


def plot(chart: LossChart) -> list[str]:
    """The rows of the plot, without axis and labels."""
    rows = text(chart)
    return [row[row.index(mark) + 1 :] for row in rows for mark in "┤│" if mark in row[:9]]


async def started(pilot: Pilot[None], steps: int = 1000, total: int = 2000) -> LossChart:
    """A focused chart of a run with `steps` steps so far."""
    chart = pilot.app.query_one(LossChart)
    chart.focus()
    chart.show(Trace(steps_per_epoch=10), total)
    chart.feed(losses(0, falling(steps), steps / 100))
    chart.redraw()
    await pilot.pause()
    return chart


@contextmanager
def repainted(chart: LossChart) -> Iterator[list[Region]]:
    """The regions of the chart that it repaints."""
    regions: list[Region] = []
    refresh = chart.refresh

    def note(*areas: Region, **options: bool) -> LossChart:
        regions.extend(areas or [chart.size.region])
        return refresh(*areas, **options)

    chart.refresh = note  # type: ignore[method-assign]
    yield regions
    chart.refresh = refresh  # type: ignore[method-assign]
