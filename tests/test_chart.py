"""The loss chart as rows of characters: what it shows, what its keys do, and what it repaints."""

from __future__ import annotations

import subprocess
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp, inf, nan

import pytest
from textual.app import App, ComposeResult
from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Offset, Region
from textual.pilot import Pilot

from engine.protocol import Evaluated, Finished, Losses
from tui.chart import LossChart
from tui.curves import Trace
from tui.plot import BLOCKS, BRAILLE

SIZES = [(80, 24), (120, 40), (200, 60)]


class Host(App[None]):
    """Nothing but a chart."""

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
    """A chart in focus with a run of `steps` steps so far."""
    chart = pilot.app.query_one(LossChart)
    chart.focus()
    chart.begin(total, steps_per_epoch=10)
    chart.add_losses(losses(0, falling(steps), steps / 100))
    chart.redraw()
    await pilot.pause()
    return chart


@contextmanager
def repainted(chart: LossChart) -> Iterator[list[Region]]:
    """The regions of the chart that are asked to be painted anew."""
    regions: list[Region] = []
    refresh = chart.refresh

    def note(*wanted: Region, **options: bool) -> LossChart:
        regions.extend(wanted or [chart.size.region])
        return refresh(*wanted, **options)

    chart.refresh = note  # type: ignore[method-assign]
    yield regions
    chart.refresh = refresh  # type: ignore[method-assign]


# --- what it shows -----------------------------------------------------------------------------------------------


async def test_without_a_run_it_says_what_to_do() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = pilot.app.query_one(LossChart)
        assert [row.strip() for row in text(chart) if row.strip()] == ["No runs yet."]
        chart.empty_text = "Press ^S."
        assert [row.strip() for row in text(chart) if row.strip()] == ["Press ^S."]


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_is_drawn_within_axes_at_every_size(size: tuple[int, int]) -> None:
    async with Host().run_test(size=size) as pilot:
        chart = await started(pilot)
        rows = text(chart)
        assert {len(row) for row in rows} == {chart.size.width}
        assert rows[0].startswith("  1.2 ┤")
        assert any(row.startswith("  0.0 ┤") for row in rows)
        assert rows[-3].startswith("      └┬─")
        assert rows[-2].split()[:2] == ["step", "0"]
        assert rows[-2].endswith("2,000")
        assert rows[-1].strip() == "every step · log off · smooth off · whole run"
        inked = [column for row in plot(chart)[3:] for column, char in enumerate(row) if char != " "]
        assert min(inked) == 0
        assert max(inked) == pytest.approx((chart.size.width - 7) / 2, abs=1)  # half of the run is done


async def test_the_curve_falls_from_the_first_loss_to_the_last() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot, 2000)
        rows = plot(chart)
        highest = [next(y for y, row in enumerate(rows) if row[column] != " ") for column in range(40)]
        assert highest == sorted(highest)
        assert highest[0] <= 2
        assert rows[-3][-1] != " "  # 0.1 is two cells above 0


async def test_train_and_test_differ_by_more_than_color() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.add_evaluation(evaluated(900, 0.9))
        chart.redraw()
        marked = [(x, y) for y, row in enumerate(plot(chart)[3:]) for x, char in enumerate(row) if char == "▪"]
        assert len(marked) == 1
        rows = text(chart)
        assert rows[0].endswith("⠒⠒ train 0.1358")
        assert rows[1].endswith(" ▪ test  0.9000")


async def test_test_points_that_are_no_numbers_leave_a_dash() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.add_evaluation(evaluated(900, None))
        chart.redraw()
        assert text(chart)[1].endswith("▪ test       —")


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-30, 3e38])
async def test_constant_losses_are_a_level_line(value: float) -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.begin(100)
        chart.add_losses(losses(0, [value] * 100))
        for key in ("l", "l"):
            chart.redraw()
            await pilot.press(key)
        rows = [row for row in plot(chart)[2:] if row.strip()]
        assert len(rows) in (0, 1)  # a line at the very top is behind the legend


@pytest.mark.parametrize(("bad", "note"), [(nan, "✗ NaN at step 12"), (inf, "✗ Inf at step 12")])
async def test_the_first_bad_loss_is_marked_where_it_was(bad: float, note: str) -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.begin(100)
        chart.add_losses(losses(0, [*falling(12), bad, bad]))
        chart.redraw()
        rows = plot(chart)
        assert sum(note in row for row in rows) == 1
        column = next(row.index("✗") for row in rows if note in row)
        assert column == int(12 / 100 * len(rows[0]))
        assert sum(row[column] == "╎" for row in rows) > len(rows) / 2


async def test_a_bad_loss_at_the_right_edge_has_its_note_to_the_left() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.begin(13)
        chart.add_losses(losses(0, [*falling(12), nan]))
        chart.redraw()
        assert any("NaN at step 12 ✗" in row for row in plot(chart))


async def test_a_run_that_is_bad_from_the_start_is_drawn() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.begin(10)
        chart.add_losses(losses(0, [nan] * 3))
        chart.redraw()
        assert any("✗ NaN at step 0" in row for row in plot(chart))
        assert text(chart)[0].endswith("train      —")


async def test_overlays_have_markers_and_names_of_their_own() -> None:
    async with Host().run_test(size=(120, 40)) as pilot:
        chart = await started(pilot)
        others = []
        for name, level in (("iris-11c0", 0.5), ("a-name-that-is-far-too-long", 0.7), ("長い", 0.9)):
            other = Trace(name)
            other.feed(losses(0, [level] * 4000))
            others.append(other)
        chart.set_overlays(others)
        rows = text(chart)
        assert [row[-28:] for row in rows[:4]] == [
            "⠒⠒ train              0.1358",
            " • iris-11c0          0.5000",
            " × a-name-that-is-fa… 0.7000",
            " +                    0.9000",
        ]
        assert rows[-2].rstrip().endswith("4,000")  # as long as the longest run
        for marker in "•×+":
            assert sum(marker in row for row in plot(chart)[5:]) == 1
        chart.set_overlays([])
        assert not any("•" in row for row in text(chart))


async def test_an_overlay_that_grows_is_drawn_with_the_next_frame() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        other = Trace("other")
        chart.set_overlays([other])
        other.feed(losses(0, [0.5] * 500))
        chart.set_overlays([other])
        assert not any("•" in row for row in plot(chart)[4:])
        chart.redraw()
        assert any("•" in row for row in plot(chart)[4:])


async def test_the_legend_moves_off_the_curve() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        assert plot(chart)[0].endswith("train 0.1358")
        chart.begin(100)
        chart.add_losses(losses(0, [float(step) for step in range(100)]))
        chart.redraw()
        assert plot(chart)[0].startswith(" ⠒⠒ train 99.000 ")
        assert plot(chart)[0].rstrip()[-1] not in "0123456789"


async def test_large_plots_are_drawn_in_blocks() -> None:
    async with Host().run_test(size=(200, 60)) as pilot:
        chart = await started(pilot)
        assert any(char in "▖▗▘▝▌▐▄▀▚▞▛▙▟▜█" for row in plot(chart) for char in row)
        chart.marker = BRAILLE
        chart.action_toggle_log()
        assert not any(char in "▖▗▘▝▌▐▀▚▞▛▙▟▜█" for row in plot(chart) for char in row)
        chart.marker = BLOCKS


async def test_a_chart_without_room_says_so() -> None:
    async with Host().run_test(size=(18, 8)) as pilot:
        chart = await started(pilot)
        assert "too small" in "".join(text(chart))


async def test_a_finished_run_fills_the_width() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot, 500, 20_000)
        assert all(row[40:].strip() == "" for row in plot(chart)[2:])
        chart.feed(
            Finished(
                time=0.0,
                outcome="stopped",
                reason="",
                steps=500,
                epochs=50.0,
                seconds=1.0,
                steps_per_second=1.0,
                final_loss=None,
                best_loss=None,
                best_step=None,
                device_reads=1,
                waited_seconds=0.0,
            )
        )
        assert any(row[-1] != " " for row in plot(chart)[2:])


async def test_clearing_shows_the_empty_text_again() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.clear()
        assert [row.strip() for row in text(chart) if row.strip()] == ["No runs yet."]


# --- keys ----------------------------------------------------------------------------------------------------------


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
        chart.begin(100)
        chart.add_losses(losses(0, [1.0] * 50 + [0.0] * 50))
        await pilot.press("l")
        rows = plot(chart)
        assert any(row[10] != " " for row in rows)
        assert not any(row[60] != " " for row in rows[2:])


async def test_m_smooths_more_and_then_not_at_all() -> None:
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
        chart.begin(1000)
        chart.add_losses(losses(0, [float(step % 2) for step in range(1000)]))
        chart.redraw()
        colors = [len({segment.style for segment in chart.render_line(y)}) for y in range(4, 16)]
        await pilot.press("m")
        smoothed = [len({segment.style for segment in chart.render_line(y)}) for y in range(4, 16)]
        assert max(smoothed) == max(colors) + 1
        assert plot(chart)[5].strip()


async def test_x_goes_through_steps_epochs_and_seconds() -> None:
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
        chart.add_losses(losses(1000, falling(1000)))
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


async def test_the_cursor_reads_off_single_steps() -> None:
    async with Host().run_test(size=(100, 24)) as pilot:
        chart = await started(pilot, 10, 20)
        chart.add_evaluation(evaluated(4, 0.5))
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


async def test_the_cursor_on_a_bucket_gives_its_range() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.begin(20_000)
        chart.add_losses(losses(0, [float(step % 4) for step in range(20_000)]))
        await pilot.press("c")
        assert text(chart)[-1].startswith(" steps 19,996–19,999 · train 0.0000…3.0000")


async def test_the_cursor_stays_in_sight_when_zoomed() -> None:
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


def test_every_key_is_described() -> None:
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


# --- what it repaints ----------------------------------------------------------------------------------------------


async def test_nothing_new_draws_nothing() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        with repainted(chart) as regions:
            assert chart.redraw() == 0
        assert regions == []


async def test_only_the_cells_that_changed_are_repainted() -> None:
    async with Host().run_test(size=(120, 40)) as pilot:
        chart = await started(pilot)
        before = text(chart)
        chart.add_losses(losses(1000, falling(1000)[-20:]))
        with repainted(chart) as regions:
            changed = chart.redraw()
        assert regions
        assert changed == len(regions) <= 6
        assert all(region.height == 1 for region in regions)
        after = text(chart)
        touched = {region.y: region for region in regions}
        for y, (old, new) in enumerate(zip(before, after, strict=True)):
            if old != new:
                assert next(x for x in range(len(new)) if old[x] != new[x]) >= touched[y].x
        assert sum(region.width for region in regions) < 60


async def test_a_growing_run_repaints_a_few_cells_a_frame() -> None:
    async with Host().run_test(size=(120, 40)) as pilot:
        chart = await started(pilot, 400, 4000)
        cells = []
        for first in range(400, 4000, 40):
            chart.add_losses(losses(first, [0.3 + 0.2 * ((step * 7) % 10) / 10 for step in range(first, first + 40)]))
            with repainted(chart) as regions:
                chart.redraw()
            cells.append(sum(region.width * region.height for region in regions))
        assert sorted(cells)[len(cells) // 2] < 60
        assert sum(count > 1000 for count in cells) <= 3


async def test_a_new_theme_changes_colors_and_no_characters() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        before, colors = text(chart), {segment.style for segment in chart.render_line(3)}
        pilot.app.theme = "textual-light"
        await pilot.pause()
        assert text(chart) == before
        assert {segment.style for segment in chart.render_line(3)} != colors


async def test_every_segment_has_a_style() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.press("m", "c")
        assert all(segment.style is not None for y in range(chart.size.height) for segment in chart.render_line(y))


async def test_another_size_draws_anew() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.resize_terminal(100, 30)
        await pilot.pause()
        assert {len(row) for row in text(chart)} == {98}
        assert text(chart)[-2].endswith("2,000")


async def test_it_can_be_maximized() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        assert chart.allow_maximize


def test_the_chart_imports_neither_plotext_nor_numpy() -> None:
    code = "import sys, tui.chart, tui.export; sys.exit(bool({'plotext', 'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
