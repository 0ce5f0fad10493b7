"""Figures of the chart and of the board: time and bytes per frame, time to take in losses, and their memory.

Prints tables and asserts nothing. Run it with `python -m tests.bench chart`.
"""

from __future__ import annotations

import asyncio
import statistics
from array import array
from collections.abc import Iterator
from math import exp
from random import Random
from time import perf_counter, process_time

from textual._compositor import CompositorUpdate
from textual.app import App, ComposeResult
from textual.screen import Screen

from epochtop.engine.protocol.events import Logged, Losses
from epochtop.engine.runs.series import SeriesWindow, summary_of
from epochtop.tui.board.board import Board
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.run_series import FamilyHistory
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


class BoardHost(App[None]):
    """Shows a board of a given size, and counts the bytes that the terminal would receive."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.board = Board(None)
        self.board.styles.width, self.board.styles.height = width, height
        self.sent = 0

    def compose(self) -> ComposeResult:
        yield self.board

    def _display(self, screen: Screen[object], renderable: object) -> None:
        if isinstance(renderable, CompositorUpdate):
            self.sent += len(renderable.render_segments(self.console).encode())


def metrics(count: int, steps: int, noise: float, block: int) -> Iterator[Logged]:
    """The windows of a script that logs `count` series at every step: losses with their validation, and others."""
    names = ["train/loss", "val/loss", *(f"metric{place}" for place in range(count - 1))]
    random = Random(1)
    for first in range(0, steps, block):
        seconds, values = first / steps * 3600, {}
        for place, name in enumerate(names):
            level = [0.05 + exp(-6 * step / steps - place / 9) for step in range(first, first + block)]
            values[name] = array("f", [value * (1 + noise * random.uniform(-2, 2)) for value in level]).tobytes()
        yield Logged(time=seconds, seconds=seconds, first_step=first, count=block, values=values)


async def _board(count: int, size: tuple[int, int], noise: float, frames: int = 100) -> tuple[list[float], list[int]]:
    """Milliseconds of CPU and bytes of each frame while `count` charts grow."""
    app, times, sent = BoardHost(*size), [], []
    async with app.run_test(size=(200, 60)) as pilot:
        board = app.board
        history = FamilyHistory(board.chart.trace.run, {"loss", *(f"metric{place}" for place in range(count - 1))})
        board.chart.show(board.chart.trace, 100_000)
        board.show_grid(count > 1)
        await pilot.pause()
        for window in metrics(count, 100_000, noise, 100_000 // frames):
            before = app.sent
            board.chart.feed(window)
            history.feed(window)
            board.chart.grown()
            start = process_time()
            board.redraw()
            times.append((process_time() - start) * 1e3)
            await pilot.pause()
            sent.append(app.sent - before)
        assert len(board.grid.tiles) == (count if count > 1 else 0)
    return times, sent


def board_frames() -> None:
    """Print CPU time and bytes of frames in which all charts grow. A second has 1 / 0.35 frames."""
    print("board: charts     size   data     median ms   worst ms   bytes per frame   KB per second   most bytes")
    for count, (width, height) in ((1, (85, 24)), (4, (85, 24)), (12, (120, 40)), (12, (200, 60))):
        for name, noise in (("smooth", 0.0), ("noisy", 0.1)):
            times, sent = asyncio.run(_board(count, (width, height), noise))
            mean = statistics.mean(sent)
            print(
                f"{count:13} {width:>5}×{height} {name:>8} {statistics.median(times):10.1f} {max(times):10.1f} {mean:14,.0f}"
                f" {mean / 0.35 / 1e3:14.2f} {max(sent):13,}"
            )


def many_series() -> None:
    """Print what a run of 1,000 series costs the board: time of a page, memory of the values."""
    app_times = asyncio.run(_many())
    print(
        "1,000 series: page planned and drawn in {:.0f} ms, turned in {:.0f} ms; series in memory: {}".format(
            *app_times
        )
    )


async def _many() -> tuple[float, float, int]:
    app = BoardHost(120, 40)
    async with app.run_test(size=(120, 40)) as pilot:
        board = app.board
        board.chart.show(Trace(), 1000)
        values = {f"layer{place}/norm": array("f", [1.0] * 10).tobytes() for place in range(1000)}
        board.chart.feed(Logged(time=1.0, seconds=1.0, first_step=0, count=10, values=values))
        start = process_time()
        board.show_grid(True)
        await pilot.pause()
        board.redraw()
        shown = process_time()
        board.grid.action_page(1)
        return (shown - start) * 1e3, (process_time() - shown) * 1e3, len(board.chart.trace.run.series)


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
    board_frames()
    many_series()
    series_ingest()


if __name__ == "__main__":
    main()
