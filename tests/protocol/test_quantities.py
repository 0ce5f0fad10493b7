"""Figures as people read them."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.protocol import quantities as words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0614, "0.0614"), (1.0, "1.000"), (31_615.4, "31615"), (2.6e36, "2.60e+36"), (1.2e-7, "1.20e-07"), (0.0, "0.0000"),
     (None, "—"), (nan, "NaN"), (inf, "inf"), (-inf, "-inf")],
)  # fmt: skip
def test_a_loss_has_four_digits(value: float | None, text: str) -> None:
    assert words.number(value) == text


@given(st.floats(width=32))
def test_a_number_is_never_long_and_never_wrong(value: float) -> None:
    text = words.number(value)
    assert len(text) <= 10
    if abs(value) < inf:
        assert float(text) == pytest.approx(value, rel=0.006, abs=6e-5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.844, "0.84 s"), (9.996, "10.0 s"), (12.44, "12.4 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (99 * 3600, "4 d 3 h")],
)  # fmt: skip
def test_a_duration_is_said_in_two_units_at_most(value: float, text: str) -> None:
    assert words.seconds(value) == text


@given(st.floats(min_value=0, max_value=1e8))
def test_an_age_is_short(value: float) -> None:
    assert len(words.age(value)) <= 6 or value > 9999 * 86_400


def test_counts_and_memory_have_their_units() -> None:
    assert (words.count(1, "step"), words.count(20_000, "step")) == ("1 step", "20,000 steps")
    assert (words.bytes_(26_344), words.bytes_(24_707_350_528), words.bytes_(12)) == ("25.7 KiB", "23.0 GiB", "12 B")
