"""Markers of a series drawn with the main one: the last value in every few cells, however many values there are."""

from __future__ import annotations

from random import Random

import pytest

from epochtop.engine.runs.series import SeriesWindow, packed
from epochtop.tui.chart.curves import MARKER_SPACING, ChartView, visible
from epochtop.tui.chart.series import Series
from epochtop.tui.chart.trace import Trace, Unit

MAIN, OTHER = "train/loss", "val/loss"


def with_values(trace: Trace, name: str, values: list[float], at: list[int]) -> Series:
    """Add values at these steps to a run; returns their series."""
    for step, value in zip(at, values, strict=True):
        window = SeriesWindow(
            name=name, first_step=step, count=1, seconds=step / 7, values=packed([value], double=True)
        )
        trace.run.add(window)
    return trace.run.series[name]


def last_in_every_few_cells(trace: Trace, series: Series, view: ChartView) -> list[tuple[float, float]]:
    """What the markers are, by going over every value."""
    ends = [trace.to_step(view.x(cell), view.unit) for cell in (0, view.width)]
    points: dict[int, tuple[float, float]] = {}
    for point in series.points(*ends):
        if point.value > 0 or not view.log:
            x = min(view.cell(trace.from_step(point.step, view.unit)), view.width - 0.01)
            points[int(x // MARKER_SPACING)] = (x, point.value)
    return list(points.values())


@pytest.mark.parametrize("unit", ["step", "epoch", "seconds"])
@pytest.mark.parametrize("log", [False, True])
def test_a_marker_is_the_last_value_of_its_cells(unit: Unit, log: bool) -> None:
    random = Random(5)
    for steps in (1, 40, 500):
        trace = Trace(steps_per_epoch=9)
        trace.selected = "loss"
        at = sorted(random.sample(range(2 * steps), steps))
        for name in (MAIN, OTHER):
            values = [random.choice([random.uniform(-1, 3), float("nan")]) for _ in at]
            series = with_values(trace, name, values, at)
        for step in at[:: max(1, steps // 20)]:
            trace.run.seconds.add(step, step // 50)  # time that stands still between two windows
        end = max(trace.from_step(at[-1] + 1, unit), 1e-3)
        for low, width, log_x in ((0.0, 20, False), (0.3 * end, 79, False), (0.0, 78, True)):
            view = ChartView(low, end, unit, width, log=log, log_x=log_x)
            assert visible(trace, view).others == [last_in_every_few_cells(trace, series, view)]


def test_the_cost_depends_on_the_cells_and_not_on_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    trace, steps, looks = Trace(), range(6000), list[float]()
    trace.selected = "loss"
    for name in (MAIN, OTHER):
        with_values(trace, name, [1.0] * len(steps), list(steps))
    look = Series.last_point

    def counted(series: Series, step: float) -> object:
        looks.append(step)
        return look(series, step)

    monkeypatch.setattr(Series, "last_point", counted)
    view = ChartView(0, len(steps), "step", 78)
    assert len(visible(trace, view).others[0]) == 78 / MARKER_SPACING
    assert len(looks) < 4 * 78 / MARKER_SPACING
