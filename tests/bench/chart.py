"""Figures of the chart: time and bytes per frame, time to take in losses, and their memory.

Prints tables and asserts nothing. Run it with `python -m tests.bench chart`.
"""

from __future__ import annotations

import asyncio
import statistics
from array import array
from collections.abc import Iterator
from math import exp
from random import Random
from time import perf_counter

from textual._compositor import CompositorUpdate
from textual.app import App, ComposeResult
from textual.screen import Screen

from epochtop.engine.protocol.events import Losses
from epochtop.engine.runs.series import SeriesWindow, summary_of
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.series import Series
from epochtop.tui.chart.trace import Trace

LAYOUTS = {"120×40": (120, 40, 85, 24), "200×60": (200, 60, 150, 48)}
"""Terminal width and height, chart width and height with its border, as in the app."""
FRAMES = 31


class Host(App[None]):
    """Shows a chart of a given size and counts the bytes that a terminal would receive."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.chart = LossChart()
        self.chart.styles.width, self.chart.styles.height = width, height
        self.sent = 0

    def compose(self) -> ComposeResult:
        yield self.chart

    def _display(self, screen: Screen[object], renderable: object) -> None:
        if isinstance(renderable, CompositorUpdate):
            self.sent += len(renderable.render_segments(self.console).encode())


def curve(steps: int, noise: float = 0.1, block: int = 4000) -> Iterator[Losses]:
    """The windows of a run of `steps` losses. Curve and noise look the same at any length."""
    random, first = Random(1), 0
    while first < steps:
        count = min(block, steps - first)
        level = [0.05 + exp(-6 * step / steps) for step in range(first, first + count)]
        values = array("f", [value * (1 + noise * random.uniform(-2, 2)) for value in level])
        first += count
        yield Losses(first_step=first - count, seconds=first / 5000, values=values.tobytes(), reads=1, waited=0.0)


async def _frame(layout: str, steps: int, smoothing: float) -> tuple[float, float]:
    columns, lines, width, height = LAYOUTS[layout]
    app = Host(width, height)
    async with app.run_test(size=(columns, lines)):
        app.chart.show(Trace(), steps)
        for window in curve(steps):
            app.chart.feed(window)
        app.chart.smoothing = smoothing
        times = []
        for _ in range(FRAMES):
            app.chart._stale = True
            start = perf_counter()
            app.chart.redraw()
            times.append(perf_counter() - start)
    return statistics.median(times) * 1e3, max(times) * 1e3


def chart_frame() -> None:
    """Print the time per frame, which must not depend on the number of steps."""
    print("frame              steps  smooth  median ms   worst ms")
    for layout in LAYOUTS:
        for steps in (1_000, 10_000_000):
            for smoothing in (0.0, 0.9):
                median, worst = asyncio.run(_frame(layout, steps, smoothing))
                print(f"{layout:12} {steps:11,} {smoothing:7} {median:10.1f} {worst:10.1f}")


async def _bytes(noise: float) -> list[int]:
    columns, lines, width, height = LAYOUTS["120×40"]
    app, sent = Host(width, height), []
    async with app.run_test(size=(columns, lines)) as pilot:
        app.chart.show(Trace(), 100_000)
        for window in curve(100_000, noise, block=500):
            before = app.sent
            app.chart.feed(window)
            app.chart.redraw()
            await pilot.pause()
            sent.append(app.sent - before)
    return sent


def chart_bytes() -> None:
    """Print the bytes that a terminal receives per frame of a growing run, over 200 frames."""
    print("bytes per frame median     mean      most")
    for name, noise in (("smooth", 0.0), ("noisy", 0.1)):
        sent = asyncio.run(_bytes(noise))
        print(f"{name:12} {statistics.median(sent):9,.0f} {statistics.mean(sent):8,.0f} {max(sent):9,}")


def series_ingest() -> None:
    """Print the time to take in 10^7 losses, and the memory of their series."""
    print("ingest of 10^7 losses   window  summaries     s   memory KiB")
    for count in (500, 4000, 1_000_000):
        values = array("f", [0.5 + 0.1 * (step % 97) / 97 for step in range(count)])
        for summary in (None, summary_of(values)):
            series, packed, start = Series(), values.tobytes(), perf_counter()
            series.expect(10_000_000)
            for first in range(0, 10_000_000, count):
                series.add(
                    SeriesWindow(name="x", first_step=first, count=count, seconds=1.0, values=packed, summary=summary)
                )
            how = "yes" if summary else "no"
            print(f"{count:32,} {how:>10} {perf_counter() - start:5.2f} {series.memory_bytes / 1024:12.0f}")


def main() -> None:
    """Print the tables."""
    chart_frame()
    chart_bytes()
    series_ingest()


if __name__ == "__main__":
    main()
