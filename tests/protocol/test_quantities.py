"""Quantities as text: digits, units, thousands."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.protocol.quantities import (
    format_age,
    format_bytes,
    format_clock,
    format_gib,
    format_number,
    format_percent,
    format_quantity,
    format_rate,
    format_seconds,
    plural,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0614, "0.0614"), (1.0, "1.000"), (31_615.4, "31615"), (2.6e36, "2.60e+36"), (1.2e-7, "1.20e-07"), (0.0, "0.0000"),
     (None, "—"), (nan, "NaN"), (inf, "inf"), (-inf, "-inf")],
)  # fmt: skip
def test_a_loss_has_four_digits(value: float | None, text: str) -> None:
    assert format_number(value) == text


@given(st.floats(width=32))
def test_a_number_is_never_long_and_never_wrong(value: float) -> None:
    text = format_number(value)
    assert len(text) <= 10
    if abs(value) < inf:
        assert float(text) == pytest.approx(value, rel=0.006, abs=6e-5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.844, "0.84 s"), (9.996, "10.0 s"), (12.44, "12.4 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (99 * 3600, "4 d 3 h")],
)  # fmt: skip
def test_a_duration_has_at_most_two_units(value: float, text: str) -> None:
    assert format_seconds(value) == text


@given(st.floats())
def test_an_age_is_short(value: float) -> None:
    assert len(format_age(value)) <= 6


def test_counts_and_memory_have_their_units() -> None:
    assert (plural(1, "step"), plural(20_000, "step")) == ("1 step", "20,000 steps")
    assert (format_bytes(26_344), format_bytes(24_707_350_528), format_bytes(12)) == ("25.7 KiB", "23.0 GiB", "12 B")


def test_large_memory_has_thousands_and_no_decimals() -> None:
    assert (format_bytes(140 * 2**30), format_bytes(2_000 * 2**40), format_bytes(None)) == (
        "140 GiB",
        "2,048,000 GiB",
        "—",
    )
    assert (format_bytes(8_188 * 2**20, rounded=True), format_bytes(512 * 2**20, rounded=True)) == ("8 GiB", "512 MiB")


def test_gibibytes_have_the_decimals_of_their_total() -> None:
    assert (format_gib(23.5 * 2**30), format_gib(140 * 2**30)) == ("23.5", "140")
    assert format_gib(1.2 * 2**30, of_bytes=140 * 2**30) == "1"


def test_rates_clocks_and_percent() -> None:
    assert (format_rate(12.54), format_rate(20_000), format_rate(None)) == (
        "12.5 steps/s",
        "20,000 steps/s",
        "— steps/s",
    )
    assert (format_clock(90), format_clock(7200)) == ("1:30", "2:00:00")
    assert (format_percent(0.12), format_quantity(840, "GFLOP/s"), format_quantity(61.4e-6, "s")) == (
        "12.0 %",
        "840 GFLOP/s",
        "61.4 µs",
    )
