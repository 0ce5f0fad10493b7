"""X axes that follow the step: seconds, time of day, epochs of a script; and marks where steps come again."""

from __future__ import annotations

import time

import pytest

from epochtop.tui.chart import axes
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.trace import Trace
from epochtop.tui.chart.x_range import tail_ends, whole_end, whole_start
from tests.support.fakes.script_runs import CREATED, SCRIPT_STARTED, logged
from tests.support.ui.charts import Host, evaluated, losses, plot, started, text


def script() -> Trace:
    """100 steps in 50 seconds, two epochs."""
    trace = Trace()
    trace.feed(SCRIPT_STARTED)
    for first in range(0, 100, 10):
        trace.feed(logged(first, (first + 10) / 2, loss=[1.0] * 10, epoch=[(first + n) / 50 for n in range(10)]))
    return trace


def test_steps_of_a_script_have_a_time_of_day_and_an_epoch() -> None:
    trace = script()
    assert trace.from_step(0, "clock") == CREATED
    assert trace.from_step(100, "clock") == CREATED + 50
    assert trace.to_step(CREATED + 25, "clock") == pytest.approx(50)
    assert trace.from_step(40, "epoch") == pytest.approx(0.78)  # the last step before it that was logged
    assert trace.epoch_known


def test_the_axis_of_the_time_of_day_begins_with_the_run() -> None:
    trace = script()
    assert whole_start(trace, "clock") == CREATED
    assert whole_end(trace, (), None, "clock", ended=True) == CREATED + 50
    assert whole_end(trace, (), None, "clock", ended=False) == CREATED + 60
    low, high = tail_ends(trace, "clock")
    assert CREATED < low < CREATED + 50 <= high


def test_ticks_are_round_times_of_day() -> None:
    labels = [label for _, label in axes.x_ticks(CREATED, CREATED + 7200, 100, "clock")]
    assert len(labels) > 3
    for value, label in axes.x_ticks(CREATED, CREATED + 7200, 100, "clock"):
        assert time.strftime("%H:%M", time.localtime(value)) == label
        assert time.localtime(value).tm_sec == 0
        assert time.localtime(value).tm_min % 5 == 0
    assert all(label.count(":") == 2 for _, label in axes.x_ticks(CREATED, CREATED + 30, 100, "clock"))
    days = axes.x_ticks(CREATED, CREATED + 20 * 86_400, 100, "clock")
    assert all(time.localtime(value).tm_hour in (23, 0, 1) for value, _ in days)  # summer time may begin in between


async def test_the_unit_key_offers_what_the_run_has() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.focus()
        chart.show(script(), None)
        units = []
        for _ in range(5):
            units.append(chart.unit)
            await pilot.press("x")
        assert units == ["step", "epoch", "seconds", "clock", "step"]
        without = Trace()
        without.feed(logged(0, loss=[1.0] * 9))
        chart.show(without, None)
        chart.unit = "step"
        await pilot.press("x")
        assert chart.unit == "seconds"


async def test_a_series_that_counts_is_an_x_axis() -> None:
    """Ten steps, each of 500 tokens; what falls, or is the same at every step, is none, and neither is a rate."""
    trace = Trace()
    for step in range(10):
        others = {"batch_samples": [32.0], "images": [float(10 - step)], "tokens_per_sec": [step + 1.0]}
        trace.feed(logged(step, step / 2, loss=[1.0], train__tokens_seen=[500.0 * (step + 1)], **others))
    assert trace.counter_units == ["series:train/tokens_seen"]
    async with Host().run_test(size=(120, 40)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.focus()
        chart.show(trace, None)
        chart.unit = "clock" if chart._can_show("clock") else "seconds"
        await pilot.press("x")
        assert chart.unit == "series:train/tokens_seen"
        assert chart.bounds() == (0.0, 5000.0)
        chart.cursor = 4
        rows = text(chart)
        assert "4,000" in rows[-2]
        assert "train/tokens_seen 2000" in rows[-1]
        await pilot.press("x")
        assert chart.unit == "step"
        chart.unit = "series:train/tokens_seen"
        chart.feed(logged(10, 6.0, loss=[1.0], train__tokens_seen=[9.0]))
        chart.redraw()
        assert trace.counter_units == []
        chart.set_overlays((script(),))
        chart.feed(logged(11, 6.0, loss=[1.0]))
        chart.redraw()
        chart.show(script(), None)
        assert chart.unit == "step"


async def test_steps_that_come_again_are_marked_at_their_first_one() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 100)
        chart.feed(losses(0, [1.0] * 80))
        chart.redraw()
        assert not any("┊" in row for row in plot(chart))
        chart.feed(losses(50, [0.5] * 10))
        chart.redraw()
        rows = plot(chart)
        column = int(50 / 100 * len(rows[0]))
        assert rows[-1][column] == "↶"
        assert sum(row[column] == "┊" for row in rows) > len(rows) / 2


async def test_the_cursor_reads_the_newest_value_of_a_sparse_series() -> None:
    async with Host().run_test(size=(120, 40)) as pilot:
        chart = await started(pilot)
        chart.feed(evaluated(500, 0.25))
        chart.cursor = 700
        assert "test 0.2500" in text(chart)[-1]
        chart.cursor = 300
        assert "test" not in text(chart)[-1]


async def test_a_chart_of_a_few_sparse_points_connects_them() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.show(Trace(), None)
        for step in (0, 500, 1000):
            chart.feed(logged(step, accuracy=[step / 1000]))
        chart.finish()
        rows = plot(chart)
        inked = {column for row in rows[2:] for column, char in enumerate(row) if char not in " ┊"}
        assert len(inked) > 0.9 * len(rows[0])
        assert "⠒⠒ accuracy 1.0000" in text(chart)[0]
