"""Every key and the mouse on the chart."""

from __future__ import annotations

import pytest
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Offset

from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.trace import Trace
from tests.support.ui.charts import Host, evaluated, falling, losses, plot, started, text


async def test_l_makes_the_loss_axis_logarithmic() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.press("l")
        rows = text(chart)
        assert rows[-1].strip() == "every step · log on · smooth off · whole run"
        assert {"0.1", "0.2", "0.5", "1"} <= {row[:5].strip() for row in rows}
        await pilot.press("l")
        assert "log off" in text(chart)[-1]


async def test_a_log_axis_draws_what_is_above_zero() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 100)
        chart.feed(losses(0, [1.0] * 50 + [0.0] * 50))
        await pilot.press("l")
        rows = plot(chart)
        assert any(row[10] != " " for row in rows)
        assert not any(row[60] != " " for row in rows[2:])


async def test_m_cycles_through_the_smoothing_factors() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        shown = []
        for _ in range(4):
            await pilot.press("m")
            shown.append(text(chart)[-1].split(" · ")[2].strip())
        assert shown == ["smooth 0.6", "smooth 0.9", "smooth 0.97", "smooth off"]


async def test_the_raw_line_stays_behind_the_smooth_one() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 1000)
        chart.feed(losses(0, [float(step % 2) for step in range(1000)]))
        chart.redraw()
        colors = [len({segment.style for segment in chart.render_line(y)}) for y in range(4, 16)]
        await pilot.press("m")
        smoothed = [len({segment.style for segment in chart.render_line(y)}) for y in range(4, 16)]
        assert max(smoothed) == max(colors) + 1
        assert plot(chart)[5].strip()


async def test_x_cycles_through_steps_epochs_and_seconds() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        ends = []
        for _ in range(3):
            await pilot.press("x")
            labels = text(chart)[-2].split()
            ends.append((labels[0], labels[-1]))
        assert ends == [("epoch", "200"), ("s", "10"), ("step", "2,000")]


async def test_w_follows_the_last_part() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.press("w")
        assert text(chart)[-1].rstrip().endswith("last 10 %")
        low, high = chart.bounds()
        assert low <= 900
        assert 1000 <= high <= 1100
        chart.feed(losses(1000, falling(1000)))
        chart.redraw()
        assert chart.bounds()[1] >= 2000
        await pilot.press("w")
        assert text(chart)[-1].rstrip().endswith("whole run")


async def test_brackets_zoom_around_the_newest_loss_and_back() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.press("left_square_bracket")
        assert chart.bounds() == (0, 1000)
        await pilot.press("left_square_bracket")
        assert chart.bounds() == (500, 1000)
        assert text(chart)[-1].rstrip().endswith("zoomed")
        await pilot.press("comma")
        assert chart.bounds() == (375, 875)
        await pilot.press("full_stop", "full_stop", "right")
        assert chart.bounds() == (750, 1250)
        await pilot.press("right_square_bracket", "right_square_bracket")
        assert chart.bounds() == (0, 2000)
        assert text(chart)[-1].rstrip().endswith("whole run")


async def test_zooming_ends_at_a_few_steps() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.press(*["left_square_bracket"] * 20)
        low, high = chart.bounds()
        assert (low, high) == (992, 1000)
        assert text(chart)[-2].split() == ["step", "992", "994", "996", "998", "1,000"]
        assert any(row.strip() for row in plot(chart)[2:])


@pytest.mark.parametrize("unit_keys", [0, 1, 2])
async def test_zooming_works_along_every_axis(unit_keys: int) -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.press(*["x"] * unit_keys, "left_square_bracket", "left_square_bracket", "c", "left")
        assert any(row.strip() for row in plot(chart)[2:])
        await pilot.press("x", "x", "x")
        assert text(chart)[-1].strip()


async def test_the_cursor_reads_single_steps() -> None:
    async with Host().run_test(size=(100, 24)) as pilot:
        chart = await started(pilot, 10, 20)
        chart.feed(evaluated(4, 0.5))
        await pilot.press("c")
        assert text(chart)[-1].strip() == "step 9 · train 1.0704 · test 0.5000 · epoch 0.9 · 0.1 s"
        assert any("│" in row for row in plot(chart))
        await pilot.press("left", "left")
        assert text(chart)[-1].startswith(" step 7 · train 1.0769")
        await pilot.press("right", "shift+left", "shift+left")
        assert chart.cursor is not None
        assert chart.cursor < 7
        await pilot.press("c")
        assert not any("│" in row for row in plot(chart))


async def test_the_cursor_on_a_bucket_shows_its_range() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 20_000)
        chart.feed(losses(0, [float(step % 4) for step in range(20_000)]))
        await pilot.press("c")
        assert text(chart)[-1].startswith(" steps 19,996–19,999 · train 0.0000…3.0000")


async def test_the_cursor_stays_visible_when_zoomed() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.press("c", *["left_square_bracket"] * 5, *["shift+left"] * 12)
        low, high = chart.bounds()
        assert chart.cursor is not None
        assert low <= chart.cursor <= high < 1000


async def test_no_key_needs_a_run() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.focus()
        await pilot.press("l", "m", "x", "w", "left_square_bracket", "right_square_bracket", "c", "left", "comma", "w")
        await pilot.press("x", "left_square_bracket", "full_stop", "w", "right_square_bracket")
        assert chart.cursor is None


def test_every_key_has_a_description() -> None:
    for binding in LossChart.BINDINGS:
        assert not isinstance(binding, tuple)
        assert binding.id
        assert binding.tooltip
        assert binding.description


# --- the mouse -----------------------------------------------------------------------------------------------------


async def test_a_click_sets_the_cursor_and_the_wheel_zooms() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.click(LossChart, offset=(1 + 7 + 20, 8))
        before = chart.cursor
        assert before == pytest.approx(20.5 / (chart.size.width - 7) * 2000, abs=1)
        await pilot.click(LossChart, offset=(2, 8))
        assert chart.cursor == before


async def test_the_wheel_zooms_around_the_mouse() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        place = chart.content_region.offset + Offset(7 + 14, 8)
        for wheel in (MouseScrollUp, MouseScrollUp, MouseScrollDown):
            before = chart.bounds()
            chart.post_message(wheel(chart, place.x, place.y, 0, 0, 0, False, False, False, place.x, place.y))
            await pilot.pause()
            after = chart.bounds()
            under = [low + (high - low) * 14.5 / (chart.size.width - 7) for low, high in (before, after)]
            assert under[0] == pytest.approx(under[1])
            assert (after[1] - after[0] < before[1] - before[0]) == (wheel is MouseScrollUp)
