"""Pictures of experiments as characters, from synthetic rows of every kind, at several terminal widths."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import Line
from epochtop.tui.cells.rows import row, shortened, side_by_side, uncolored, wrapped
from epochtop.tui.cells.styles import colored
from epochtop.tui.lab.pictures.axes import across, scale, short, upright
from epochtop.tui.lab.pictures.bars import bar
from epochtop.tui.lab.pictures.lines import MARKERS
from epochtop.tui.lab.pictures.picture import MOST, figures, picture_rows
from epochtop.tui.lab.pictures.points import series, subject

LINES = Picture(
    title="Time over size",
    kind="lines",
    x="size",
    y="seconds",
    series=("device",),
    unit="s",
    x_title="size",
    y_title="time",
)
BARS = Picture(title="Parts of a step", kind="bars", y="seconds", series=("part",), unit="s")
LANES = Picture(title="Two steps", kind="timeline", x="begin", y="end", series=("lane",), x_unit="s", x_title="time")
TABLE = Picture(title="Operators", kind="table", series=("operator",), columns=("operator", "calls", "self_seconds"))
KINDS = (LINES, BARS, LANES, TABLE)


def drawn(picture: Picture, rows: list[Row], *lines: Line, width: int = 76, height: int = 14) -> list[str]:
    return [uncolored(actual) for actual in picture_rows(picture, rows, lines, width, height)]


def sizes(device: str, factor: float, rounds: int = 3) -> list[Row]:
    """A straight line through zero."""
    return [
        {"device": device, "size": size, "round": turn, "seconds": factor * size}
        for turn in range(rounds)
        for size in (1, 2, 4, 8, 16)
    ]


# --- lines -----------------------------------------------------------------------------------------------------------


def test_a_point_is_the_median_of_its_rows() -> None:
    rows: list[Row] = [
        {"device": "cpu", "size": 1, "round": turn, "seconds": value} for turn, value in enumerate((3, 9, 5, 4, 8))
    ]
    (one,) = series(LINES, rows)
    (point,) = one.points
    assert (point.x, point.y.median, point.y.low, point.y.high, point.y.count) == (1, 5, 4, 8, 5)


def test_two_curves_differ_in_their_markers() -> None:
    actual = drawn(LINES, sizes("cpu", 1.0) + sizes("cuda", 3.0))
    assert actual[-1] == f"{MARKERS[0]} cpu   {MARKERS[1]} cuda"
    plot = "\n".join(actual[2:-1])
    assert plot.count(MARKERS[0]) == 4  # at the smallest size both are in one cell, and the later one is seen
    assert plot.count(MARKERS[1]) == 5


def test_a_larger_value_is_higher_and_a_larger_x_further_right() -> None:
    actual = drawn(LINES, sizes("cpu", 1.0))
    places = sorted((line.index("●"), row) for row, line in enumerate(actual) if "●" in line)
    assert all(left[1] > right[1] for left, right in pairwise(places))


def test_seconds_are_reported_in_the_unit_that_suits_them() -> None:
    actual = drawn(LINES, sizes("cpu", 1e-6))
    assert actual[1].strip() == "time (µs)"
    assert any(line.startswith(("10 ┤", " 10 ┤")) for line in actual)


def test_logarithmic_axes_have_every_size_under_its_points() -> None:
    picture = Picture(title="t", kind="lines", x="n", y="rate", unit="GFLOP/s", x_log=True, y_log=True)
    actual = drawn(picture, [{"n": 2**power, "rate": 8.0**power} for power in range(4, 9)])
    labels, axis = actual[-1], actual[-2]
    assert labels.split() == ["16", "32", "64", "128", "256"]
    marked = [column for column, char in enumerate(axis) if char == "┬"]
    points = sorted(line.index("●") for line in actual if "●" in line)
    assert points == marked
    assert actual[1].startswith("rate (GFLOP/s)")


def test_what_has_no_place_on_a_logarithmic_axis_gets_one() -> None:
    picture = Picture(title="t", kind="lines", x="every", y="seconds", unit="s", x_log=True)
    actual = drawn(picture, [{"every": every, "seconds": 1.0 + every} for every in (0, 1, 10, 100)])
    assert actual[-1].split() == ["0", "1", "10", "100"]
    assert "".join(actual).count("●") == 4


def test_a_computed_line_is_drawn_with_the_points_and_named() -> None:
    line = Line(name="fitted", points=((1.0, 1.0), (16.0, 16.0)))
    actual = drawn(LINES, sizes("cpu", 1.0), line)
    assert actual[-1] == "● cpu   ·· fitted"
    inside = [text.partition("┤" if "┤" in text else "│")[2] for text in actual[2:-3]]
    assert sum(text.count("·") for text in inside) > 20
    assert sum(text.count("●") for text in inside) == 5


def test_a_computed_line_beyond_the_points_widens_the_axes() -> None:
    line = Line(name="peak", points=((0.0, 100.0), (32.0, 100.0)))
    actual = drawn(LINES, sizes("cpu", 1.0), line)
    assert "30" in actual[-2].split()
    assert "100" in actual[2]


def test_computed_lines_at_one_x_stand_and_have_markers_of_their_own() -> None:
    first, second = (Line(name=f"at {x:.0f}", points=((x, 1.0), (x, 16.0))) for x in (3.0, 6.0))
    leaning = Line(name="fitted", points=((1.0, 1.0), (16.0, 16.0)))
    for log in (False, True):
        picture = msgspec.structs.replace(LINES, x_log=log, y_log=log)
        actual = drawn(picture, sizes("cpu", 1.0), first, leaning, second)
        assert actual[-1] == "● cpu   ┊ at 3   ·· fitted   ╏ at 6"
        columns = [{line.index(mark) for line in actual[2:-3] if mark in line} for mark in ("┊", "╏")]
        assert [len(each) for each in columns] == [1, 1]
        assert max(columns[0]) < max(columns[1])
        assert all(sum(mark in line for line in actual[2:-3]) >= 5 for mark in ("┊", "╏"))


def test_a_single_point_is_seen_before_a_point_of_a_curve() -> None:
    rows: list[Row] = [{"device": "yours", "size": 4, "seconds": 4.0}, *sizes("cpu", 1.0)]
    plot = "".join(drawn(LINES, rows)[2:-3])
    assert (plot.count(MARKERS[0]), plot.count(MARKERS[1])) == (1, 4)


def test_a_spread_of_more_than_a_row_is_drawn() -> None:
    rows: list[Row] = [{"device": "cpu", "size": size, "round": turn, "seconds": value}
                       for size in (1, 2) for turn, value in enumerate((1.0, 5.0, 10.0))]  # fmt: skip
    inside = [line[6:] for line in drawn(LINES, rows)[2:-3]]
    assert sum(line.count("│") for line in inside) >= 4


def test_names_on_the_x_axis_are_in_the_order_of_the_rows() -> None:
    picture = Picture(title="t", kind="lines", x="precision", y="seconds", unit="s")
    actual = drawn(picture, [{"precision": name, "seconds": 1.0} for name in ("fp32", "bf16", "fp16")])
    assert actual[-1].split() == ["fp32", "bf16", "fp16"]


def test_what_all_rows_agree_in_is_in_the_title() -> None:
    picture = Picture(title="Step", kind="lines", x="size", y="seconds", series=("device", "loop"), unit="s")
    rows: list[Row] = [{"device": "cpu", "loop": loop, "size": 1, "seconds": 1.0} for loop in ("plain", "ours")]
    assert drawn(picture, rows)[0] == "Step · cpu"
    assert [one.name for one in series(picture, rows)] == ["plain", "ours"]
    assert subject(picture, rows[:1]) == "cpu"


def test_rows_of_other_kinds_are_not_in_the_picture() -> None:
    picture = Picture(title="t", kind="lines", x="n", y="seconds", where={"kind": "step", "threads": "2"})
    rows: list[Row] = [
        {"kind": "step", "threads": 2, "n": 1, "seconds": 1.0},
        {"kind": "step", "threads": 1, "n": 2, "seconds": 1.0},
        {"kind": "launch", "threads": 2, "n": 3, "seconds": 1.0},
        {"threads": 2, "n": 4, "seconds": 1.0},
        {"kind": "step", "threads": 2, "n": 5, "seconds": None},
    ]
    (one,) = series(picture, rows)
    assert [point.x for point in one.points] == [1]


def test_the_figures_behind_a_plot_have_their_quartiles() -> None:
    rows: list[Row] = [
        {"device": "cpu", "size": 64, "round": turn, "seconds": value / 1e6} for turn, value in enumerate((60, 61, 63))
    ]
    (heading, line) = [uncolored(actual) for actual in figures(LINES, rows, 76)]
    assert heading.split() == ["size", "median", "quartiles"]
    assert line.split("  ")[-2:] == ["61.0 µs", "60.5 µs … 62.0 µs"]


# --- bars ------------------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_medians() -> None:
    rows: list[Row] = [{"part": part, "round": turn, "seconds": value}
                       for turn in range(3) for part, value in (("host", 4.0), ("device", 2.0), ("reads", 1.0))]  # fmt: skip
    actual = drawn(BARS, rows)[1:]
    lengths = [line.count("█") for line in actual]
    assert lengths[0] == 2 * lengths[1] == 4 * lengths[2]
    assert [line.split()[0] for line in actual] == ["host", "device", "reads"]
    assert actual[0].endswith("4.00 s … 4.00 s")


def test_a_bar_of_something_is_never_nothing() -> None:
    assert bar(0.0, 40) == ""
    assert bar(1e-9, 40) == "▏"
    assert bar(0.5, 4) == "██"
    assert bar(1.0, 4) == "████"


def test_long_names_of_bars_are_cut_in_their_middle() -> None:
    rows: list[Row] = [
        {"part": f"aten::a_very_long_name_of_an_operator_{end}", "seconds": 1.0} for end in ("forward", "backward")
    ]
    actual = drawn(BARS, rows, width=60)[1:]
    assert all(len(line) <= 60 and "…" in line for line in actual)
    assert actual[0].split()[0] != actual[1].split()[0]


# --- timelines -------------------------------------------------------------------------------------------------------


def test_a_span_fills_its_part_of_a_lane() -> None:
    rows: list[Row] = [{"lane": "host", "begin": 0.0, "end": 0.010}, {"lane": "device", "begin": 0.005, "end": 0.010}]
    host, device, _, labels = drawn(LANES, rows)[1:]
    assert "·" not in host.split("▕")[1]
    lane = device.split("▕")[1].split("▏")[0]
    assert abs(lane.count("·") - lane.count("█")) <= 1
    assert lane.startswith("·")
    assert lane.endswith("█")
    assert host.endswith("10.0 ms")
    assert device.endswith("5.00 ms")
    assert labels.split() == ["0", "2", "4", "6", "8", "10"]


def test_overlapping_spans_are_busy_once() -> None:
    rows: list[Row] = [
        {"lane": "a", "begin": 0.0, "end": 2.0},
        {"lane": "a", "begin": 1.0, "end": 3.0},
        {"lane": "b", "begin": 0.0, "end": 4.0},
    ]
    assert drawn(LANES, rows)[1].endswith("3.00 s")


def test_the_shortest_span_leaves_a_mark() -> None:
    rows: list[Row] = [{"lane": "a", "begin": 0.0, "end": 1.0}, {"lane": "b", "begin": 0.5, "end": 0.5 + 1e-9}]
    assert drawn(LANES, rows)[2].count("░") == 1


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_has_a_line_for_what_agrees_and_its_medians() -> None:
    rows: list[Row] = [
        {"operator": name, "calls": 20, "round": turn, "self_seconds": value * 1e-6}
        for turn, factor in enumerate((1, 5, 2))
        for name, value in (("addmm", 10 * factor), ("relu", 3 * factor))
    ]
    head, first, second = drawn(TABLE, rows)[1:]
    assert head.split() == ["operator", "calls", "self"]
    assert first.split() == ["addmm", "20", "20.0", "µs"]
    assert second.split() == ["relu", "20", "6.00", "µs"]


def test_columns_without_room_are_named() -> None:
    columns = tuple(f"column{number}" for number in range(12))
    picture = Picture(title="t", kind="table", columns=columns)
    actual = drawn(picture, [dict.fromkeys(columns, 123456789)], width=60)
    assert actual[-1].startswith("not shown: column4, column5")
    assert all(len(line) <= 60 for line in actual)


def test_a_long_table_says_how_much_is_left_out() -> None:
    rows: list[Row] = [{"operator": f"op{number}", "calls": number, "self_seconds": 1.0} for number in range(MOST + 10)]
    assert drawn(TABLE, rows)[-1] == "… 11 more"


# --- all kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", KINDS, ids=lambda picture: picture.kind)
def test_without_rows_the_picture_says_so(picture: Picture) -> None:
    assert drawn(picture, []) == [picture.title, "nothing was measured"]


cells = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.integers(-(10**9), 10**18),
    st.floats(-1e30, 1e30),
    st.sampled_from((math.nan, math.inf)),
)
names = ("device", "size", "seconds", "part", "lane", "begin", "end", "operator", "calls", "self_seconds")


@settings(max_examples=30)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(names), cells), max_size=12),
    points=st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e12, 1e12)), max_size=4),
    width=st.integers(30, 120),
    height=st.integers(6, 30),
    logs=st.tuples(st.booleans(), st.booleans()),
)
@pytest.mark.parametrize("picture", KINDS, ids=lambda picture: picture.kind)
def test_whatever_rows_there_are_the_picture_fits(
    picture: Picture,
    rows: list[Row],
    points: list[tuple[float, float]],
    width: int,
    height: int,
    logs: tuple[bool, bool],
) -> None:
    picture = msgspec.structs.replace(picture, x_log=logs[0], y_log=logs[1])
    actual = picture_rows(picture, rows, (Line(name="computed", points=tuple(points)),), width, height)
    for text, roles in actual:
        assert len(text) == len(roles) <= width
        assert text.isprintable()


@pytest.mark.parametrize("width", [60, 76, 118])
def test_a_plot_has_the_height_that_it_was_given(width: int) -> None:
    assert len(drawn(LINES, sizes("cpu", 1.0) + sizes("cuda", 2.0), width=width, height=16)) == 16


# --- axes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1e-6, "s", "1 µs"), (0.02, "s", "20 ms"), (64 * 1024, "B", "64 KiB"), (2**30, "B/s", "1 GiB/s"),
     (8192, "", "8,192"), (131072, "", "131k"), (0.5, "", "0.5"), (100_000, "GFLOP/s", "100k")],
)  # fmt: skip
def test_ticks_are_short(value: float, unit: str, text: str) -> None:
    assert short(value, unit) == text


def test_the_unit_of_a_linear_axis_is_that_of_its_largest_value() -> None:
    assert scale(2.5e-4, "s") == (1e-6, "µs")
    assert upright([1e-4, 2.5e-4], "s", False, 10).unit == "µs"
    assert upright([1e-4, 2.5e-1], "s", True, 10).unit == ""


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20), st.booleans(), st.integers(10, 150))
def test_every_value_has_a_cell_on_its_axis(values: list[float], log: bool, cells: int) -> None:
    axis = across(values, "s", log, cells)
    for value in values:
        cell = axis.cell(value, cells)
        assert cell is not None
        assert -1e-6 <= cell <= cells
    assert axis.cell(math.nan, cells) is None


# --- rows ------------------------------------------------------------------------------------------------------------


def test_sentences_are_wrapped_behind_their_label() -> None:
    actual = [uncolored(each) for each in wrapped("one two three four five six", 20, first="Next       ")]
    assert actual == ["Next       one two", "           three", "           four five", "           six"]


def test_what_would_move_the_cursor_or_take_two_cells_is_replaced() -> None:
    text, roles = row(("a\tb\x1b界", 1))
    assert text == "a?b??"
    assert len(roles) == 5


def test_colors_are_those_of_the_roles_and_plain_text_has_none() -> None:
    line = row(("Finding ", 2), ("good", 4))
    assert colored(line) == "\x1b[2mFinding \x1b[0m\x1b[32mgood\x1b[0m"
    assert uncolored(line) == "Finding good"


def test_a_legend_without_room_says_how_many_are_left_out() -> None:
    actual = [uncolored(each) for each in side_by_side([("●", f"series {number}", 10) for number in range(9)], 40, 2)]
    assert len(actual) == 2
    assert actual[-1].endswith("more")


@given(st.text(alphabet="abcdef", max_size=30), st.integers(3, 30))
def test_a_name_that_is_shortened_keeps_both_ends(name: str, width: int) -> None:
    actual = shortened(name, width)
    assert len(actual) <= width
    assert actual == name if len(name) <= width else actual[0] == name[0]
