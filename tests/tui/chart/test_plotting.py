"""The plot: values that plotext cannot take are filtered, and every point is in the cell of its value."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.protocol.quantities import format_fixed_width
from epochtop.tui.cells.canvas import Canvas
from epochtop.tui.chart.axes import Limits, labels, linear_limits, log_limits, place_labels, x_ticks, y_ticks
from epochtop.tui.chart.plotting import BLOCKS, BRAILLE, PlottedCurve, draw, row_of

UNIT = Limits(0, 1, 0.5)
DECADES = Limits(-2, 0, 1, log=True)


def rows(canvas: Canvas) -> list[str]:
    return [text for text, _ in canvas.rows()]


def test_points_are_in_the_cells_of_their_values() -> None:
    canvas = draw([PlottedCurve([(0, 0.0), (2, 0.5), (4, 1.0)], 3, "x", line=False)], 5, 3, UNIT)
    assert rows(canvas) == ["    x", "  x  ", "x    "]
    assert canvas.roles[0] == [0, 0, 0, 0, 3]


def test_a_later_curve_is_drawn_over_an_earlier_one() -> None:
    low = PlottedCurve([(0, 0.0), (4, 0.0)], 1, "-")
    high = PlottedCurve([(2, 0.0)], 2, "o", line=False)
    assert rows(draw([low, high], 5, 2, UNIT))[1] == "--o--"


@pytest.mark.parametrize("marker", [BRAILLE, BLOCKS, "x"])
@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0, nan)],
        [(0, inf), (1, -inf)],
        [(1, 0.5)],
        [(0, 0.5), (1, 0.5), (2, 0.5)],
        [(-50, 0.5), (500, 0.5)],
        [(0, 1e300), (3, -1e300)],
    ],
)
@pytest.mark.parametrize("limits", [UNIT, DECADES])
def test_no_measured_values_break_the_plot(points: list[tuple[float, float]], marker: str, limits: Limits) -> None:
    canvas = draw([PlottedCurve(points, 1, marker)], 10, 4, limits)
    assert [len(text) for text in rows(canvas)] == [10] * 4


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(width=32)), max_size=30), st.booleans())
def test_any_floats_can_be_drawn(points: list[tuple[float, float]], log: bool) -> None:
    canvas = draw([PlottedCurve(points, 1)], 10, 4, DECADES if log else UNIT)
    drawable = [y for _, y in points if y == y and abs(y) != inf and (y > 0 or not log)]
    assert any(text.strip() for text in rows(canvas)) == bool(drawable)


def test_values_from_zero_down_break_the_line_of_a_log_axis() -> None:
    canvas = draw([PlottedCurve([(0, 1.0), (1, 1.0), (4, 0.0), (7, 1.0), (8, 1.0)], 1, "x")], 9, 3, DECADES)
    assert rows(canvas)[0] == "xx     xx"


def test_a_canvas_too_small_to_plot_stays_blank() -> None:
    assert rows(draw([PlottedCurve([(0, 1.0)], 1)], 1, 1, UNIT)) == [" "]


def test_ticks_and_curves_agree() -> None:
    for rows_ in (5, 8, 17, 34):
        limits = linear_limits(0.03, 1.1, rows_)
        for level, _ in y_ticks(limits, rows_):
            canvas = draw([PlottedCurve([(0, level), (3, level)], 1)], 4, rows_, limits)
            inked = [row for row, text in enumerate(rows(canvas)) if text.strip()]
            assert inked == [row_of(level, limits, rows_)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.05, 1.1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2"]),
        (3, 3, ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]),
        (0, 0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.69312, 0.69314, ["0.693120", "0.693125", "0.693130", "0.693135", "0.693140"]),
        (-5, -4.9, ["-5.00", "-4.98", "-4.96", "-4.94", "-4.92", "-4.90"]),
        (0, 3e-6, ["0", "5.0e-7", "1.0e-6", "1.5e-6", "2.0e-6", "2.5e-6", "3.0e-6"]),
        (1, 12_000, ["0", "2,000", "4,000", "6,000", "8,000", "10,000", "12,000"]),
    ],
)
def test_ranges_have_round_steps_and_short_labels(low: float, high: float, expected: list[str]) -> None:
    assert [label for _, label in y_ticks(linear_limits(low, high, 17), 17)] == expected


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30), st.integers(3, 60))
def test_a_linear_range_contains_its_data(a: float, b: float, height: int) -> None:
    low, high = min(a, b), max(a, b)
    limits = linear_limits(low, high, height)
    slack = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert limits.low <= low + slack
    assert high - slack <= limits.high
    assert limits.low < limits.high
    assert 2 <= len(y_ticks(limits, height)) <= max(6, height)


@given(st.floats(1e-38, 1e30), st.floats(1e-38, 1e30), st.integers(3, 60))
def test_a_log_range_contains_its_data(a: float, b: float, height: int) -> None:
    low, high = min(a, b), max(a, b)
    limits = log_limits(low, high, height)
    assert 10**limits.low <= low * 1.000001
    assert high <= 10**limits.high * 1.000001
    assert 2 <= len(y_ticks(limits, height)) <= max(6, height)


def test_a_range_stays_until_the_data_need_another() -> None:
    wide = linear_limits(0, 1.1, 17)
    assert wide.holds(linear_limits(0, 0.8, 17))
    assert not wide.holds(linear_limits(0, 0.2, 17))
    assert not wide.holds(linear_limits(0, 1.3, 17))


@pytest.mark.parametrize(
    ("unit", "low", "high", "expected"),
    [
        ("step", 0, 20_000, ["0", "5,000", "10,000", "15,000", "20,000"]),
        ("step", 0, 3, ["0", "1", "2", "3"]),
        ("epoch", 0, 0.5, ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        ("seconds", 0, 300, ["0:00", "1:00", "2:00", "3:00", "4:00", "5:00"]),
        ("seconds", 0, 7200, ["0:00", "30:00", "1:00:00", "1:30:00", "2:00:00"]),
    ],
)
def test_x_ticks_are_round(unit: str, low: float, high: float, expected: list[str]) -> None:
    assert [label for _, label in x_ticks(low, high, 60, unit)] == expected


def test_labels_are_never_cut_and_never_touch() -> None:
    assert place_labels([(0, "0"), (3, "5,000"), (9, "10,000")], 10).split() == ["0", "10,000"]
    line = place_labels([(0, "0"), (12, "10,000"), (29, "20,000")], 30)
    assert line.split() == ["0", "10,000", "20,000"]
    assert len(line) == 30


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0912, "0.0912"), (12.3456, "12.346"), (1234.56, "1234.6"), (1.234e-5, "1.2e-5"), (1e30, "1.0e30"), (None, "—")],
)
def test_figures_have_six_cells(value: float | None, text: str) -> None:
    assert format_fixed_width(value) == text.rjust(6)


@given(st.floats(-1e38, 1e38))
def test_no_figure_is_wider_than_seven_cells(value: float) -> None:
    assert 6 <= len(format_fixed_width(value)) <= 7


def test_large_numbers_have_exponents() -> None:
    assert labels([0, 2e6, 4e6], 2e6) == ["0", "2e6", "4e6"]
