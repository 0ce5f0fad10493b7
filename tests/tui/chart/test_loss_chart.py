"""The loss chart as rows of characters: what it shows, what its keys do, and what it repaints."""

from __future__ import annotations

import subprocess
import sys
from math import inf, nan

import pytest

from epochtop.engine.protocol.events import Finished
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.plotting import BLOCKS, BRAILLE
from epochtop.tui.chart.trace import Trace
from tests.support.ui.charts import Host, evaluated, falling, losses, plot, repainted, started, text
from tests.support.ui.screens import until

SIZES = [(80, 24), (120, 40), (200, 60)]


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
        chart.feed(evaluated(900, 0.9))
        chart.redraw()
        marked = [(x, y) for y, row in enumerate(plot(chart)[3:]) for x, char in enumerate(row) if char == "▪"]
        assert len(marked) == 1
        rows = text(chart)
        assert rows[0].endswith("⠒⠒ train 0.1358")
        assert rows[1].endswith(" ▪ test  0.9000")


async def test_a_test_loss_that_is_not_finite_is_a_dash() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.feed(evaluated(900, None))
        chart.redraw()
        assert text(chart)[1].endswith("▪ test       —")


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-30, 3e38])
async def test_constant_losses_are_a_level_line(value: float) -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 100)
        chart.feed(losses(0, [value] * 100))
        for key in ("l", "l"):
            chart.redraw()
            await pilot.press(key)
        rows = [row for row in plot(chart)[2:] if row.strip()]
        assert len(rows) in (0, 1)  # a line at the very top is behind the legend


@pytest.mark.parametrize(("bad", "note"), [(nan, "✗ NaN at step 12"), (inf, "✗ Inf at step 12")])
async def test_the_first_bad_loss_is_marked_at_its_step(bad: float, note: str) -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 100)
        chart.feed(losses(0, [*falling(12), bad, bad]))
        chart.redraw()
        rows = plot(chart)
        assert sum(note in row for row in rows) == 1
        column = next(row.index("✗") for row in rows if note in row)
        assert column == int(12 / 100 * len(rows[0]))
        assert sum(row[column] == "╎" for row in rows) > len(rows) / 2


async def test_a_bad_loss_at_the_right_edge_has_its_note_to_the_left() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 13)
        chart.feed(losses(0, [*falling(12), nan]))
        chart.redraw()
        assert any("NaN at step 12 ✗" in row for row in plot(chart))


async def test_a_run_that_is_bad_from_the_start_is_drawn() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        chart.show(Trace(), 10)
        chart.feed(losses(0, [nan] * 3))
        chart.redraw()
        assert any("✗ NaN at step 0" in row for row in plot(chart))
        assert text(chart)[0].endswith("train      —")


async def test_every_overlay_has_its_marker_and_name() -> None:
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


async def test_a_growing_overlay_is_drawn_with_the_next_frame() -> None:
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
        chart.show(Trace(), 100)
        chart.feed(losses(0, [float(step) for step in range(100)]))
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
        chart.feed(losses(1000, falling(1000)[-20:]))
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
            chart.feed(losses(first, [0.3 + 0.2 * ((step * 7) % 10) / 10 for step in range(first, first + 40)]))
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


async def test_a_new_size_redraws_the_chart() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: {len(row) for row in text(chart)} == {98})
        assert text(chart)[-2].endswith("2,000")


async def test_it_can_be_maximized() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        assert chart.allow_maximize


def test_the_chart_imports_neither_plotext_nor_numpy() -> None:
    code = "import sys, epochtop.tui.chart.loss_chart, epochtop.tui.chart.export; sys.exit(bool({'plotext', 'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
