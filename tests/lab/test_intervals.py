"""Intervals of time: what they cover and the gaps between them are the whole window, none of it twice."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.intervals import covered, gaps, merged

INTERVALS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 3)).map(lambda pair: (pair[0], pair[0] + pair[1])))
NUMBERS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1])))


@given(intervals=INTERVALS)
def test_gaps_and_the_intervals_between_them_fill_a_window(intervals: list[tuple[float, float]]) -> None:
    left = gaps(intervals, (2.0, 8.0))
    busy = [(max(start, 2.0), min(end, 8.0)) for start, end in merged(intervals) if end > 2.0 and start < 8.0]
    assert sum(end - start for start, end in (*left, *busy)) == pytest.approx(6.0)
    for start, end in left:
        assert all(other_end <= start or other_start >= end for other_start, other_end in intervals)


@given(intervals=NUMBERS)
def test_what_is_covered_twice_counts_once(intervals: list[tuple[int, int]]) -> None:
    assert covered(intervals) == len({moment for start, end in intervals for moment in range(start, end)})


@given(intervals=NUMBERS, near=st.integers(0, 5))
def test_those_that_are_near_each_other_are_one(intervals: list[tuple[int, int]], near: int) -> None:
    actual = merged(intervals, near)
    assert all(after[0] - before[1] > near for before, after in pairwise(actual))
    for start, end in intervals:
        assert any(first <= start and end <= last for first, last in actual)
