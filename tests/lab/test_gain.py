"""The measured gain of a setting, against the spread of the steps before."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from epochtop.engine.lab.gain import gained
from epochtop.engine.lab.statistics import Figure, figure

BEFORE = Figure(64e-6, 62e-6, 66e-6, 9)


def test_a_gain_is_reported_with_both_times() -> None:
    actual = gained(BEFORE, 1 / 12.3e-6)
    assert actual is not None
    assert (
        actual.words({"executor": "graph"})
        == "executor=graph made it 5.2 × as fast (64.0 µs per step before, 12.3 µs now)"
    )


def test_what_became_slower_is_reported_as_slower() -> None:
    actual = gained(BEFORE, 1 / 128e-6)
    assert actual is not None
    assert (
        actual.words({"workers": "2"}) == "workers=2 made it slower: 2 × as long (64.0 µs per step before, 128 µs now)"
    )


def test_a_larger_batch_gains_by_the_row() -> None:
    actual = gained(BEFORE, 1 / 128e-6, rows_before=16, rows_after=64)
    assert actual is not None
    assert actual.ratio.median == pytest.approx(2)
    assert actual.words({"batch_size": "64"}).endswith("(4.00 µs per row before, 2.00 µs now)")


@given(st.lists(st.floats(50e-6, 150e-6), min_size=3, max_size=20), st.floats(0, 1))
def test_no_gain_is_claimed_within_the_spread(times: list[float], place: float) -> None:
    before = figure(times)
    actual = gained(before, 1 / (before.low + place * before.spread))
    assert actual is not None
    assert "no measurable difference" in actual.words({"executor": "graph"})


@given(st.floats(1e-6, 1), st.floats(1.5, 1000), st.floats(0, 0.1))
def test_a_planted_gain_is_reported_back(step_s: float, times: float, spread: float) -> None:
    before = Figure(step_s, step_s * (1 - spread), step_s * (1 + spread), 7)
    assume(times - 1 > 2 * spread * times)
    actual = gained(before, times / step_s)
    assert actual is not None
    assert actual.distinct
    assert actual.ratio.median == pytest.approx(times)


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf])
def test_a_run_without_steps_has_no_gain(rate: float) -> None:
    assert gained(BEFORE, rate) is None


def test_a_step_that_was_measured_once_is_not_compared() -> None:
    actual = gained(figure([64e-6]), 1 / 12e-6)
    assert actual is not None
    assert not actual.distinct
    assert "too few measurements" in actual.words({})
