"""The legend, the axes and the notes hide no curve, whatever its shape."""

from __future__ import annotations

from dataclasses import replace
from math import nan, sin

from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.tui.cells.canvas import Row
from epochtop.tui.chart import frame
from epochtop.tui.chart.curves import ChartView
from epochtop.tui.chart.frame import ChartContent, Ranges
from epochtop.tui.chart.marks.legend import entries
from epochtop.tui.chart.marks.signs import OVERLAYS, RAW, TEST, TRAIN
from epochtop.tui.chart.trace import Trace
from tests.support.ui.charts import evaluated, losses

STEPS = 200
SHAPES = {
    "falling": lambda step: 2.0 - step / STEPS,
    "rising": lambda step: step / STEPS,
    "level": lambda step: 1.0,
    "wave": lambda step: 1.0 + sin(step / 9),
    "noise": lambda step: (step * 7919 % 100) / 100,
    "corners": lambda step: 1.0 if step < STEPS / 8 or step > STEPS * 7 / 8 else 0.0,
    "spike": lambda step: 9.0 if step == STEPS - 3 else 0.5,
    "bad": lambda step: nan if step == STEPS // 2 else step / STEPS,
}
INK = {TRAIN, TEST, RAW, *OVERLAYS}


def run(name: str, shape: str, scale: float) -> Trace:
    trace = Trace(name)
    trace.feed(losses(0, [scale * SHAPES[shape](step) for step in range(STEPS)]))
    trace.feed(evaluated(STEPS - 10, scale))
    return trace


def ink(rows: list[Row], gutter: int) -> dict[tuple[int, int], str]:
    """The cells of curves, by place."""
    return {
        (x, y): char
        for y, row in enumerate(rows)
        for x, (char, role) in enumerate(zip(*row, strict=True))
        if role in INK and char != " " and x >= gutter
    }


CURVES = st.lists(
    st.tuples(st.sampled_from(sorted(SHAPES)), st.sampled_from([1.0, 0.4, 1e-6, 1e6])), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(CURVES, st.sampled_from([(60, 13), (77, 11), (85, 22), (150, 44)]), st.booleans(), st.booleans(), st.booleans())
def test_the_legend_hides_no_curve(
    shapes: list[tuple[str, float]], size: tuple[int, int], log: bool, smoothed: bool, grouped: bool
) -> None:
    first, *others = [run(f"run-{place}", shape, scale) for place, (shape, scale) in enumerate(shapes)]
    if grouped and others:
        first.group, first.peers, others = "lr=0.1", (others[0],), others[1:]
    view = ChartView(0, STEPS, "step", 10, 0.9 if smoothed else 0.0, log)
    content = ChartContent(*size, first, tuple(others), view, None, "whole run", "auto")
    ranges = Ranges()
    rows = frame.compose(content, ranges)
    gutter = ranges.gutter
    lines = size[1] - 3
    above = sum(row.text[gutter - 1] == " " for row in rows[:lines])  # rows without the y axis
    assert (above > 0) == (ranges.legend == "above")
    ranges_of_bare = Ranges(limits=ranges.limits, gutter=gutter)
    bare = frame.compose(replace(content, legend=False, height=size[1] - above), ranges_of_bare)
    curve = ink(bare, gutter)
    assert curve
    assert [place for place, char in curve.items() if rows[place[1] + above].text[place[0]] != char] == []
    assert len(rows) == size[1]
    assert {len(row.text) for row in rows} == {size[0]}


def test_one_curve_among_other_runs_has_the_name_of_its_run() -> None:
    first, second = Trace("lr 0.1"), Trace("lr 0.2")
    for trace in (first, second):
        trace.feed(losses(0, [1.0, 0.5]))
    names = [
        [entry.text.rpartition(" ")[0].strip() for entry in entries(first, others, "deviation", False)]
        for others in ([], [second])
    ]
    assert names == [["train"], ["lr 0.1", "lr 0.2"]]
