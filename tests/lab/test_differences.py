"""A difference is one from both sides, or none."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import difference

FIVE = st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), min_size=5, max_size=5)
"""The quartiles of five values are two of them."""


def rows(seconds: list[float]) -> list[Row]:
    return [{"round": turn, "seconds": each} for turn, each in enumerate(seconds)]


@given(pairs=FIVE)
def test_it_does_not_matter_which_side_comes_first(pairs: list[tuple[float, float]]) -> None:
    first, second = (rows([pair[side] for pair in pairs]) for side in (0, 1))
    one, other = difference(first, second), difference(second, first)
    assert one is not None
    assert other is not None
    size, spread = abs(math.log(one.ratio.median)), math.log(one.ratio.high / one.ratio.low)
    assume(abs(size - spread) > 1e-9)
    assert one.distinct == other.distinct


def test_many_times_slower_is_slower_whatever_the_spread_of_the_ratio() -> None:
    slow = difference(rows([4.8, 5.6, 11.1]), rows([1.0, 1.0, 1.0]))
    fast = difference(rows([1.0, 1.0, 1.0]), rows([4.8, 5.6, 11.1]))
    assert slow is not None
    assert fast is not None
    assert slow.distinct
    assert fast.distinct


def test_a_spread_larger_than_the_difference_is_none() -> None:
    actual = difference(rows([0.8, 1.1, 1.4]), rows([1.0, 1.0, 1.0]))
    assert actual is not None
    assert not actual.distinct
