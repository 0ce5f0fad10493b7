"""Groups of runs: the arithmetic of their mean and band, and how a chart draws and names them."""

from __future__ import annotations

import statistics
from math import nan

import pytest

from epochtop.tui.chart.curves import BandKind, ChartView
from epochtop.tui.chart.export import export_csv, export_svg
from epochtop.tui.chart.groups.band import band
from epochtop.tui.chart.groups.mean import shown
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.chart.trace import Trace
from tests.support.fakes.script_runs import logged_at
from tests.support.ui.charts import Host, losses, plot, started, text

SEEDS = (0.2, 0.4, 0.9)


def grouped(levels: tuple[float, ...] = SEEDS, name: str = "lr=0.1") -> Trace:
    """A group of runs with constant losses."""
    first, *others = [Trace(f"seed{place}") for place in range(len(levels))]
    for trace, level in zip((first, *others), levels, strict=True):
        trace.feed(losses(0, [level] * 100))
    first.group, first.peers = name, tuple(others)
    return first


def view(**settings: object) -> ChartView:
    return ChartView(0, 100, "step", 50, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "lows", "highs"),
    [("range", [1.0, 2.0, 5.0], [3.0, 2.0, 5.0]), ("deviation", [2 - 2**0.5, 2.0, 5.0], [2 + 2**0.5, 2.0, 5.0])],
)
def test_a_band_has_mean_and_spread_per_step(kind: BandKind, lows: list[float], highs: list[float]) -> None:
    result = band([([0, 1, 2], [1.0, 2.0, nan]), ([0, 1, 3], [3.0, 2.0, 5.0])], kind)
    assert (result.steps, result.means, result.counts) == ([0, 1, 3], [2.0, 2.0, 5.0], [2, 2, 1])
    assert result.lows == pytest.approx(lows)
    assert result.highs == pytest.approx(highs)


def test_the_mean_of_runs_has_the_band_of_their_values() -> None:
    drawn = shown(grouped(), view())
    mean, deviation = statistics.fmean(SEEDS), statistics.stdev(SEEDS)
    assert [y for _, y in drawn.raw] == pytest.approx([mean] * 50)
    for _, low, high in drawn.band:
        assert (low, high) == (pytest.approx(mean - deviation), pytest.approx(mean + deviation))
    for _, low, high in shown(grouped(), view(band="range")).band:
        assert (low, high) == (pytest.approx(0.2), pytest.approx(0.9))


def test_runs_that_log_at_different_steps_count_in_every_column() -> None:
    """Two runs on the lines y = x / 100 and y = x / 100 + 0.2, at even and at odd tens: the mean is on the line between."""
    first, second = Trace("a"), Trace("b")
    first.feed(logged_at([*range(0, 101, 20)], 1.0, loss=[step / 100 for step in range(0, 101, 20)]))
    second.feed(logged_at([*range(10, 101, 20)], 1.0, loss=[step / 100 + 0.2 for step in range(10, 101, 20)]))
    first.peers = (second,)
    points = dict(shown(first, view()).raw)
    inside = {x: y for x, y in points.items() if 10 <= 2 * x <= 90}
    assert len(inside) >= 8
    for x, y in inside.items():
        assert y == pytest.approx(2 * x / 100 + 0.1, abs=0.011)


def test_a_run_that_ends_early_leaves_the_mean_of_the_others() -> None:
    group = grouped((0.2, 0.4))
    group.peers[0].feed(losses(100, [0.4] * 100))
    drawn = shown(group, ChartView(0, 200, "step", 50))
    assert {round(y, 6) for x, y in drawn.raw if x < 24} == {0.3}
    assert {round(y, 6) for x, y in drawn.raw if x > 26} == {0.4}


async def test_a_group_is_one_line_with_a_band_and_the_legend_says_so() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = await started(pilot)
        group = grouped()
        chart.show(group, 100)
        chart.set_overlays([])
        assert chart.border_title == "Loss · lr=0.1, mean of 3 runs"
        rows = text(chart)
        assert any("⠒⠒ lr=0.1 n=3 0.5000" in row for row in rows)
        assert sum("░░ ± std" in row for row in rows) == 1
        assert "band ± std" in rows[-1]
        # without color: dots are the ends of the band and the mean between them, and the rest of the band is shaded
        column = [row[30] for row in plot(chart)]
        top, line, bottom = [y for y, char in enumerate(column) if "⠀" < char <= "⣿"]
        shaded = [y for y, char in enumerate(column) if char == "░"]
        assert shaded == [y for y in range(top + 1, bottom) if y != line]
        await pilot.press("B")
        assert any("░░ min–max" in row for row in text(chart))
        assert [y for y, row in enumerate(plot(chart)) if row[30] == "░"] != shaded
        await pilot.press("c")
        assert "train 0.5000 (0.2000…0.9000, n=3)" in text(chart)[-1]


async def test_two_groups_differ_by_more_than_color() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = pilot.app.query_one(LossChart)
        chart.show(grouped(), 100)
        chart.set_overlays([grouped((1.0, 1.4), "lr=0.01")])
        rows = text(chart)
        assert any("·• lr=0.01 n=2 1.2000" in row for row in rows)
        column = "".join(row[30] for row in plot(chart))
        assert "·" in column
        assert "░" in column
        assert column.index("·") < column.index("░")


async def test_a_run_of_a_group_with_a_bad_value_is_counted() -> None:
    async with Host().run_test(size=(80, 24)) as pilot:
        chart = pilot.app.query_one(LossChart)
        group = grouped((0.2, 0.4))
        group.peers[0].feed(losses(100, [nan] * 10))
        chart.show(group, 110)
        chart.set_overlays([])
        assert any("NaN in 1 of 2 runs at step 100" in row for row in text(chart))


def test_the_files_of_a_group_have_mean_and_band() -> None:
    table = export_csv(grouped((0.25, 0.5)), view(band="range")).splitlines()
    assert table[1] == "lr=0.1 train,0,0.25,0.375,0.5,"
    assert len(table) == 1 + 100
    drawing = export_svg(grouped((0.25, 0.5)), view(band="range"))
    assert "n=2 min–max" in drawing
    assert "<polygon" in drawing
