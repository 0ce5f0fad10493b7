"""The chart of a range test: a logarithmic x axis of learning rates with a mark at the suggestion."""

from __future__ import annotations

import itertools

from epochtop.engine.protocol.events import Finished, Suggestion
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.chart.axes import x_ticks
from epochtop.tui.chart.curves import ChartView
from epochtop.tui.chart.export import export_svg
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.run_series import Sweep, sweep_of
from epochtop.tui.chart.trace import Trace
from tests.support.ui.charts import Host, losses, plot, text

TOP, STEPS = 10.0, 201
SUGGESTION = Suggestion(
    learning_rate=0.01, steepest_rate=0.0102, lowest_rate=0.1, tenth_of_lowest=0.01, first_loss=1.0, lowest_loss=0.1
)


def sweep_trace() -> Trace:
    return Trace("test", sweep=Sweep(TOP, STEPS))


def ended(suggestion: Suggestion | None) -> Finished:
    return Finished(
        time=0.0,
        outcome="finished",
        reason="",
        steps=STEPS,
        epochs=1.0,
        seconds=1.0,
        steps_per_second=1.0,
        final_loss=1.0,
        best_loss=0.1,
        best_step=150,
        device_reads=1,
        waited_seconds=0.0,
        suggestion=suggestion,
    )


async def test_the_axis_has_the_powers_of_ten_at_even_distances() -> None:
    async with Host().run_test(size=(120, 30)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.show(sweep_trace(), STEPS)
        chart.feed(losses(0, [1.0] * STEPS))
        chart.redraw()
        labels = text(chart)[-2]
        assert labels.split() == ["rate", "1e-6", "1e-5", "1e-4", "0.001", "0.01", "0.1", "1", "10"]
        places = [column for column, char in enumerate(text(chart)[-3]) if char == "┬"]
        gaps = {b - a for a, b in itertools.pairwise(places)}
        assert max(gaps) - min(gaps) <= 1


async def test_a_loss_is_above_its_learning_rate_and_the_suggestion_is_marked() -> None:
    async with Host().run_test(size=(120, 30)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.show(sweep_trace(), STEPS)
        # 0.01 is 4 of 7 powers of ten above 1e-6: at step 4 / 7 of 200
        fallen = round(4 / 7 * (STEPS - 1))
        chart.feed(losses(0, [1.0] * fallen + [0.2] * (STEPS - fallen)))
        chart.redraw()
        before = plot(chart)
        assert not any("┊" in row for row in before)
        chart.feed(ended(SUGGESTION))
        chart.redraw()
        mark = {row.index("┊") for row in plot(chart) if "┊" in row}
        assert len(mark) == 1
        column = mark.pop()
        assert any("try 0.01" in row for row in plot(chart))
        low = next(row for row in before[::-1] if row.strip())
        assert abs(low.index(low.strip()[0]) - column) <= 2
        width = len(before[0])
        assert abs(column - 4 / 7 * width) <= 2


async def test_the_cursor_shows_the_rate_and_other_axes_remain() -> None:
    async with Host().run_test(size=(120, 30)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.focus()
        chart.show(sweep_trace(), STEPS)
        chart.feed(losses(0, [1.0] * STEPS))
        chart.redraw()
        await pilot.press("c")
        assert "learning rate 10 " in text(chart)[-1]
        await pilot.press("c", "x")
        assert text(chart)[-2].split()[0] == "step"
        await pilot.press("x", "x", "x")
        assert text(chart)[-2].split()[0] == "rate"


async def test_zooming_keeps_powers_of_ten_and_ends_at_the_whole_run() -> None:
    async with Host().run_test(size=(120, 30)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.focus()
        chart.show(sweep_trace(), STEPS)
        chart.feed(losses(0, [1.0] * STEPS))
        chart.redraw()
        await pilot.press("left_square_bracket", "left_square_bracket")
        low, high = chart.bounds()
        assert high - low == 7 / 4
        assert text(chart)[-2].split()[-1] == "10"
        for _ in range(15):
            await pilot.press("comma")
        assert chart.bounds()[0] == -6.0
        await pilot.press("right_square_bracket", "right_square_bracket", "right_square_bracket")
        assert chart.range_mode == "whole"
        await pilot.press("w")
        assert chart.bounds()[0] > -6.0


async def test_another_run_uses_steps_and_an_overlay_without_rates_is_omitted() -> None:
    async with Host().run_test(size=(120, 30)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.show(sweep_trace(), STEPS)
        chart.feed(losses(0, [1.0] * STEPS))
        other = Trace("plain")
        other.feed(losses(0, [50.0] * 100))
        chart.set_overlays([other])
        chart.redraw()
        assert "50" not in "".join(row[:7] for row in text(chart)[:-2])
        chart.show(Trace("plain"), 100)
        assert chart.unit == "step"


def test_a_drawing_has_the_axis_and_the_mark() -> None:
    trace = sweep_trace()
    trace.feed(losses(0, [1.0] * STEPS))
    trace.feed(ended(SUGGESTION))
    drawing = export_svg(trace, ChartView(-6.0, 1.0, "rate", 100))
    assert ">learning rate</text>" in drawing
    assert ">try 0.01</text>" in drawing
    assert ">0.001</text>" in drawing


def test_ticks_are_one_two_five_if_there_is_room() -> None:
    assert [label for _, label in x_ticks(-2.0, -1.0, 60, "rate")] == ["0.01", "0.02", "0.05", "0.1"]


def test_only_range_tests_have_a_sweep() -> None:
    assert sweep_of(RunSpec()) is None
    sweep = sweep_of(RunSpec(schedule="range_test", learning_rate=3.0))
    assert sweep is not None
    assert sweep.top == 3.0
