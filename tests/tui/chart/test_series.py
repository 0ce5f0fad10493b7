"""The series of losses: independent of the windows, bounded, and without lost extremes."""

from __future__ import annotations

from array import array
from itertools import pairwise
from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.tui.chart.series import LossSeries, PointSeries, StepTimes

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
STREAMS = st.lists(FLOATS, min_size=1, max_size=200)


def window(values: list[float]) -> bytes:
    return array("f", values).tobytes()


def fed(values: list[float], cuts: list[int], capacity: int = 16) -> LossSeries:
    """A series of `values` in windows that end at `cuts`."""
    series = LossSeries(capacity)
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(values)}), len(values)]
    start = 0
    for end in ends:
        series.extend(start, window(values[start:end]), end / 10)
        start = end
    return series


@given(STREAMS, st.lists(st.integers(0, 200), max_size=20))
def test_the_result_does_not_depend_on_the_windows(values: list[float], cuts: list[int]) -> None:
    whole, cut = fed(values, []), fed(values, cuts)
    assert (whole.steps, whole.width, whole.first_bad_step, whole.last, whole.minimum) == (
        cut.steps,
        cut.width,
        cut.first_bad_step,
        cut.last,
        cut.minimum,
    )
    for a, b in zip(whole.buckets(0, beyond(whole)), cut.buckets(0, beyond(cut)), strict=True):
        assert a[:-1] == b[:-1]
        # Python 3.12 sums floats with compensation inside a window, so the last bits of a mean may differ
        assert a.mean == pytest.approx(b.mean, rel=1e-9, abs=1e-9 * max(abs(a.minimum), abs(a.maximum)))


def beyond(series: LossSeries) -> int:
    return series.steps + 1


@given(STREAMS)
def test_every_bucket_summarizes_its_steps(values: list[float]) -> None:
    series = fed(values, [])
    exact = array("f", values)  # as float32
    seen = 0
    for bucket in series.buckets(0, beyond(series)):
        steps = [value for value in exact[bucket.start : bucket.stop] if isfinite(value)]
        seen += len(steps)
        assert bucket.start % series.width == 0
        assert (bucket.finite, bucket.first, bucket.last) == (len(steps), steps[0], steps[-1])
        assert (bucket.minimum, bucket.maximum) == (min(steps), max(steps))
        assert bucket.mean == pytest.approx(sum(steps) / len(steps), rel=1e-9, abs=1e-9 * max(map(abs, steps)))
    assert seen == sum(map(isfinite, exact))
    assert series.first_bad_step == next((i for i, value in enumerate(exact) if not isfinite(value)), None)


def edges(steps: int, columns: int) -> list[float]:
    """The edges of columns of equal width over steps from 0."""
    return [steps * place / columns for place in range(columns + 1)]


def test_a_spike_survives_any_number_of_merges() -> None:
    values = [0.5] * 100_000
    values[77_777] = 9.0
    series = fed(values, [], capacity=64)
    columns = series.columns(edges(100_000, 20))
    assert max(column.maximum for column in columns if column) == 9.0
    assert [i for i, column in enumerate(columns) if column and column.maximum == 9.0] == [15]


def test_memory_is_bounded_at_any_length() -> None:
    series = LossSeries(256)
    block = window([0.25] * 4096)
    sizes = []
    for i in range(200):
        series.extend(i * 4096, block, i)
        sizes.append(series.memory_bytes)
    assert len(list(series.buckets(0, series.steps))) <= 256
    assert series.width == 4096
    assert sizes[-1] <= sizes[50] + 16 * 200


def test_a_complete_column_never_changes() -> None:
    series = LossSeries(1024)
    series.extend(0, window([i / 100 for i in range(500)]), 1)
    before = series.columns(edges(1000, 10))[:5]
    series.extend(500, window([7.0] * 400), 2)
    assert series.columns(edges(1000, 10))[:5] == before


def test_a_repeated_window_is_ignored_and_an_overlapping_one_continues() -> None:
    series = LossSeries()
    series.extend(0, window([3, 2, 1]), 1)
    series.extend(0, window([9, 9, 9]), 2)
    series.extend(2, window([9, 0.5]), 3)
    assert [bucket.last for bucket in series.buckets(0, 9)] == [3, 2, 1, 0.5]
    assert series.steps == 4


def test_a_gap_leaves_an_empty_stretch() -> None:
    series = LossSeries()
    series.extend(0, window([3, 2]), 1)
    series.extend(5, window([1]), 2)
    assert [bucket.start for bucket in series.buckets(0, 9)] == [0, 1, 5]
    hole = series.bucket(3)
    assert hole is not None
    assert hole.finite == 0


def test_a_gap_of_any_size_stays_bounded() -> None:
    series = LossSeries(16)
    series.extend(0, window([1, 2, 3]), 1)
    series.extend(10**12, window([4]), 2)
    assert series.steps == 10**12 + 1
    assert [bucket.last for bucket in series.buckets(0, 10**13)] == [3, 4]


@pytest.mark.parametrize(("bad", "kind"), [(nan, "NaN"), (inf, "Inf"), (-inf, "Inf")])
def test_the_first_bad_step_is_recorded_and_excluded_from_the_figures(bad: float, kind: str) -> None:
    series = LossSeries()
    series.extend(0, window([2, bad, 1, nan]), 1)
    assert (series.first_bad_step, series.bad_kind) == (1, kind)
    assert (series.last, series.minimum) == (1, 1)
    column = series.columns(edges(4, 1))[0]
    assert column is not None
    assert (column.finite, column.minimum, column.maximum, column.mean) == (2, 1, 2, 1.5)


def test_a_memoryview_and_an_empty_window_are_accepted() -> None:
    series = LossSeries()
    series.extend(0, memoryview(window([1, 2, 3]))[4:], 1)
    series.extend(2, b"", 1)
    assert series.steps == 2
    assert series.last == 3


def test_an_empty_series_can_be_read() -> None:
    series = LossSeries()
    assert series.columns(edges(100, 3)) == [None, None, None]
    assert series.bucket(0) is None
    assert series.last is None


def test_seconds_are_interpolated_between_windows() -> None:
    times = StepTimes()
    times.add(100, 1.0)
    times.add(300, 2.0)
    assert [times.seconds_at(step) for step in (0, 50, 100, 200, 300, 999)] == [0, 0.5, 1, 1.5, 2, 2]
    assert [times.step_at(seconds) for seconds in (-1, 0.5, 1.5, 9)] == [0, 50, 200, 300]


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1e6) | st.just(nan)), max_size=300))
def test_seconds_never_run_backwards_and_stay_bounded(windows: list[tuple[int, float]]) -> None:
    times = StepTimes(capacity=16)
    for step, seconds in windows:
        times.add(step, seconds)
    seen = [times.seconds_at(step) for step in range(0, 1000, 10)]
    assert seen == sorted(seen)
    assert len(times._steps) <= 16


def test_test_points_are_thinned_evenly_and_keep_the_best_and_the_last() -> None:
    points = PointSeries(capacity=64)
    for step in range(10_001):
        points.add(step, 0.01 if step == 7_777 else 1.0)
    kept = [point.step for point in points.between(0, 10_001)]
    assert len(kept) <= 66
    assert {0, 7_777, 10_000} <= set(kept)
    assert max(b - a for a, b in pairwise(kept)) <= 2 * 10_001 / 32


def test_a_test_loss_that_is_not_finite_is_not_a_point() -> None:
    points = PointSeries()
    points.add(0, None)
    points.add(1, nan)
    points.add(2, 0.5, 0.9)
    points.add(2, 0.1)
    assert [point.step for point in points.between(0, 9)] == [2]
    assert points.at(1.5) == (1, None, None)
    assert points.best == (2, 0.5, 0.9)
