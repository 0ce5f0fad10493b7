"""The series of losses: independent of the windows, bounded, and without lost extremes."""

from __future__ import annotations

from array import array
from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.runs.series import SeriesWindow, packed, summary_of
from epochtop.tui.chart.scales import StepScale
from epochtop.tui.chart.series import Series

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
STREAMS = st.lists(FLOATS, min_size=1, max_size=200)


def window(first: int, values: list[float], summarized: bool = False) -> SeriesWindow:
    summary = summary_of(array("f", values).tolist()) if summarized and values else None
    return SeriesWindow(
        name="loss", first_step=first, count=len(values), seconds=1.0, values=packed(values), summary=summary
    )


def points(steps: list[int], values: list[float]) -> SeriesWindow:
    """Values at any steps."""
    numbers = array("q", steps).tobytes()
    return SeriesWindow(
        name="accuracy", first_step=steps[0], count=len(steps), seconds=1.0, values=packed(values), steps=numbers
    )


def fed(values: list[float], cuts: list[int], capacity: int = 16, summarized: bool = False) -> Series:
    """A series of `values` in windows that end at `cuts`."""
    series = Series(capacity)
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(values)}), len(values)]
    start = 0
    for end in ends:
        series.add(window(start, values[start:end], summarized))
        start = end
    return series


@given(STREAMS, st.lists(st.integers(0, 200), max_size=20), st.booleans())
def test_the_result_does_not_depend_on_the_windows(values: list[float], cuts: list[int], summarized: bool) -> None:
    whole, cut = fed(values, []), fed(values, cuts, summarized=summarized)
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


def beyond(series: Series) -> int:
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
    series = Series(256)
    sizes = []
    for i in range(200):
        series.add(window(i * 4096, [0.25] * 4096))
        sizes.append(series.memory_bytes)
    assert len(list(series.buckets(0, series.steps))) <= 256
    assert series.width == 4096
    assert sizes[-1] <= sizes[50] + 16 * 200


def test_a_complete_column_never_changes() -> None:
    series = Series(1024)
    series.add(window(0, [i / 100 for i in range(500)]))
    before = series.columns(edges(1000, 10))[:5]
    series.add(window(500, [7.0] * 400))
    assert series.columns(edges(1000, 10))[:5] == before


def test_steps_that_come_again_replace_the_old_ones_and_leave_a_seam() -> None:
    series = Series()
    series.add(window(0, [3, 2, 1]))
    series.add(window(1, [9, 8]))
    series.add(window(3, [0.5]))
    assert [bucket.last for bucket in series.buckets(0, 9)] == [3, 9, 8, 0.5]
    assert (series.steps, series.seams) == (4, [1])


def test_a_step_that_is_logged_twice_leaves_no_seam() -> None:
    """A trainer logs the epoch with the loss, and again with the evaluation of the same step."""
    series = Series()
    for step in (50, 50, 100, 100):
        series.add(window(step, [step / 100]))
    assert (series.steps, series.seams) == (101, [])


@pytest.mark.parametrize("begin", [0, 13, 64, 100])
def test_a_second_pass_replaces_wide_buckets_from_its_first_whole_one_on(begin: int) -> None:
    series = Series(16)
    series.add(window(0, [1.0] * 128))
    for step in range(begin, 128, 5):
        series.add(window(step, [2.0] * min(5, 128 - step)))
    assert series.width == 8
    first_whole = -(-begin // 8)
    for bucket in series.buckets(0, 128):
        expected = 1.0 if bucket.stop <= begin else 2.0
        assert bucket.last == expected
        assert bucket.minimum == (1.0 if bucket.start < first_whole * 8 else 2.0)
        assert bucket.finite == 8 or bucket.start < begin < bucket.stop
    assert series.seams == [begin]


def test_one_late_value_removes_no_other_value() -> None:
    series = Series(16)
    series.add(window(0, [1.0] * 100))
    series.add(window(50, [7.0]))
    series.add(window(100, [1.0] * 28))
    assert [bucket.finite for bucket in series.buckets(0, 128)] == [8] * 6 + [9] + [8] * 9
    assert max(bucket.maximum for bucket in series.buckets(0, 128)) == 7.0


def test_sparse_steps_keep_their_places_until_there_are_too_many_values() -> None:
    series = Series(64)
    steps = list(range(1000, 51_000, 1000))
    for start in range(0, 50, 10):
        series.add(points(steps[start : start + 10], [step / 1000 for step in steps[start : start + 10]]))
    assert series.width == 1
    assert series.points(0, 60_000) == [(step, step / 1000) for step in steps]
    assert series.points(1500, 3000) == [(2000, 2.0), (3000, 3.0)]
    assert series.bucket(1500) is None
    before, after = series.near(1500), series.after(1500)
    assert before is not None
    assert after is not None
    assert (before.last, after.last) == (1.0, 2.0)


def test_steps_in_any_order_are_sorted() -> None:
    series = Series()
    series.add(points([5, 1, 3, 1], [5.0, 9.0, 3.0, 1.0]))
    assert series.points(0, 9) == [(1, 1.0), (3, 3.0), (5, 5.0)]
    assert series.steps == 6


def test_values_of_double_precision_are_kept() -> None:
    series = Series()
    values = [1e9 + 1, 1e300, 2.0**53 - 1]
    series.add(SeriesWindow(name="tokens", first_step=0, count=3, seconds=1.0, values=packed(values, double=True)))
    assert [point.value for point in series.points(0, 9)] == values
    assert series.double


def test_a_gap_leaves_an_empty_stretch() -> None:
    series = Series()
    series.add(window(0, [3, 2]))
    series.add(window(5, [1]))
    assert [bucket.start for bucket in series.buckets(0, 9)] == [0, 1, 5]
    assert series.bucket(3) is None


def test_a_gap_of_any_size_stays_bounded() -> None:
    series = Series(16)
    series.add(window(0, [1, 2, 3]))
    series.add(window(10**12, [4]))
    assert series.steps == 10**12 + 1
    assert [bucket.last for bucket in series.buckets(0, 10**13)] == [1, 2, 3, 4]


@pytest.mark.parametrize(("bad", "kind"), [(nan, "NaN"), (inf, "Inf"), (-inf, "Inf")])
def test_the_first_bad_step_is_recorded_and_excluded_from_the_figures(bad: float, kind: str) -> None:
    series = Series()
    series.add(window(0, [2, bad, 1, nan]))
    assert (series.first_bad_step, series.bad_kind) == (1, kind)
    assert (series.last, series.minimum) == (1, 1)
    column = series.columns(edges(4, 1))[0]
    assert column is not None
    assert (column.finite, column.minimum, column.maximum, column.mean) == (2, 1, 2, 1.5)


def test_an_empty_window_changes_nothing() -> None:
    series = Series()
    series.add(window(0, [1, 2, 3]))
    series.add(window(2, []))
    assert (series.steps, series.last, series.seams) == (3, 3, [])


def test_an_empty_series_can_be_read() -> None:
    series = Series()
    assert series.columns(edges(100, 3)) == [None, None, None]
    assert series.bucket(0) is None
    assert series.last is None


def test_seconds_are_interpolated_between_windows() -> None:
    times = StepScale()
    times.add(100, 1.0)
    times.add(300, 2.0)
    assert [times.at(step) for step in (0, 50, 100, 200, 300, 999)] == [0, 0.5, 1, 1.5, 2, 2]
    assert [times.step_at(seconds) for seconds in (-1, 0.5, 1.5, 9)] == [0, 50, 200, 300]


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1e6) | st.just(nan)), max_size=300))
def test_seconds_never_run_backwards_and_stay_bounded(windows: list[tuple[int, float]]) -> None:
    times = StepScale(capacity=16)
    for step, seconds in windows:
        times.add(step, seconds)
    seen = [times.at(step) for step in range(0, 1000, 10)]
    assert seen == sorted(seen)
    assert len(times._steps) <= 16
