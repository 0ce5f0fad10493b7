"""A difference is one from both sides, or none, and its sentence says what its interval says."""

from __future__ import annotations

import math
import random
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from epochtop.engine.lab.differences import ROUNDING, Difference, difference, estimate, share, stated
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import Figure

PAIRS = st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), min_size=3, max_size=30)
NUMBERS = re.compile(r"([\d.,]+) × \(([\d.,]+) … ([\d.,]+)\) as (long|fast)$")


@st.composite
def ratios(draw: st.DrawFn) -> Figure:
    """A ratio with any interval, down to a hair's breadth from 1, from three rounds or more."""
    near = st.floats(-1e-4, 1e-4)
    logs = sorted(draw(st.lists(near | st.floats(-8, 8), min_size=3, max_size=3)))
    low, median, high = map(math.exp, logs)
    return Figure(median, low, high, draw(st.integers(3, 100)))


def rows(seconds: list[float]) -> list[Row]:
    return [{"round": turn, "seconds": each} for turn, each in enumerate(seconds)]


# --- sentences ---------------------------------------------------------------------------------------------------


@given(ratio=ratios())
def test_the_sentence_agrees_with_its_interval(ratio: Figure) -> None:
    words = Difference(ratio).words("a", "b")
    numbers = NUMBERS.search(words)
    assert numbers is not None, words
    median, low, high = (float(number.replace(",", "")) for number in numbers.groups()[:3])
    assert low <= median <= high
    if ratio.low > 1 + ROUNDING:
        assert words.startswith("a is slower than b: ")
        assert numbers[4] == "long"
        assert low > 1
    elif ratio.high < 1 - ROUNDING:
        assert words.startswith("a is faster than b: ")
        assert numbers[4] == "fast"
        assert low > 1
    else:
        assert words.startswith("no difference between a and b larger than ")
        assert "slower" not in words
        assert "faster" not in words
        assert low - ROUNDING <= 1 <= high + ROUNDING


@given(ratio=ratios())
def test_the_other_side_has_the_opposite_direction(ratio: Figure) -> None:
    one = Difference(ratio)
    opposite = {"slower": "faster", "faster": "slower", "same": "same"}
    assume(min(abs(abs(end - 1) - ROUNDING) for end in (ratio.low, ratio.high)) > 1e-9)
    assert one.inverse.direction == opposite[one.direction]


@pytest.mark.parametrize(
    ("low", "median", "high", "words"),
    [
        (1.07, 1.22, 1.31, "a is slower than b: 1.22 × (1.07 … 1.31) as long"),
        (0.5, 0.625, 0.8, "a is faster than b: 1.6 × (1.25 … 2) as fast"),
        (0.93, 1.04, 1.31, "no difference between a and b larger than 31.0 % can be seen: 1.04 × (0.93 … 1.31) as long"),
        (0.25, 1.0, 1.5, "no difference between a and b larger than a factor of 4.00 can be seen: 1 × (0.25 … 1.5) as long"),
        (1.0001, 1.0002, 1.0003, "a is slower than b: 1.0002 × (1.0001 … 1.0003) as long"),
    ],
)  # fmt: skip
def test_the_direction_is_in_words(low: float, median: float, high: float, words: str) -> None:
    assert Difference(Figure(median, low, high, 9)).words("a", "b") == words


def test_two_rounds_have_no_direction() -> None:
    few = Difference(Figure(2.0, 2.0, 2.0, 2))
    assert few.direction == "few"
    assert few.words("a", "b") == "a and b were compared only twice, too few to be sure: 2 ×"


# --- intervals ---------------------------------------------------------------------------------------------------


@given(pairs=PAIRS)
def test_it_does_not_matter_which_side_comes_first(pairs: list[tuple[float, float]]) -> None:
    first, second = (rows([pair[side] for pair in pairs]) for side in (0, 1))
    one, other = difference(first, second), difference(second, first)
    assert one is not None
    assert other is not None
    for side in (one.ratio.low, one.ratio.median, one.ratio.high):
        assert side > 0
    assert one.inverse.ratio.low == pytest.approx(other.ratio.low, rel=1e-6)
    assert one.inverse.ratio.high == pytest.approx(other.ratio.high, rel=1e-6)


def test_many_times_slower_is_slower_whatever_the_spread_of_the_ratio() -> None:
    slow = difference(rows([4.8, 5.6, 11.1]), rows([1.0, 1.0, 1.0]))
    fast = difference(rows([1.0, 1.0, 1.0]), rows([4.8, 5.6, 11.1]))
    assert slow is not None
    assert fast is not None
    assert slow.slower
    assert fast.faster


def test_slower_in_every_round_is_slower_however_long_the_tail() -> None:
    slow = difference(rows([1.1, 1.2, 1.3, 1.4, 9.0, 80.0, 140.0, 900.0]), rows([1.0] * 8))
    assert slow is not None
    assert slow.slower


def test_a_spread_larger_than_the_difference_is_none() -> None:
    actual = difference(rows([0.8, 1.1, 1.4]), rows([1.0, 1.0, 1.0]))
    assert actual is not None
    assert actual.direction == "same"


@pytest.mark.parametrize("count", [3, 5, 8, 15, 50])
def test_noise_alone_seldom_has_a_direction(count: int) -> None:
    chance = random.Random(count)
    tries = 1000
    differences = (
        difference(
            rows([chance.lognormvariate(0, 0.3) for _ in range(count)]),
            rows([chance.lognormvariate(0, 0.3) for _ in range(count)]),
        )
        for _ in range(tries)
    )
    wrong = sum(one is not None and one.distinct for one in differences)
    assert wrong / tries <= (0.05 if count < 5 else 0.02)


# --- parts of a whole --------------------------------------------------------------------------------------------


@given(part=st.floats(0, 1e3), whole=st.floats(1e-6, 1e3), spread=st.floats(0, 0.5))
def test_a_part_is_a_fraction_or_unknown(part: float, whole: float, spread: float) -> None:
    parts, wholes = (Figure(one, one * (1 - spread), one * (1 + spread), 9) for one in (part, whole))
    fraction = share(parts, wholes)
    if fraction is None:
        assert part * (1 - spread) > whole * (1 + spread)
    else:
        assert 0 <= fraction.low <= fraction.median <= fraction.high <= 1


def test_fewer_than_three_rounds_have_no_stated_interval() -> None:
    assert stated("ratio", "×", estimate([1.0, 1.1])) == ()
    (one,) = stated("ratio", "×", estimate([1.0, 1.1, 1.2]))
    assert (one.value, one.count) == (1.1, 3)
