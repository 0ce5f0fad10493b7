"""Statistics of the lab against planted truths: medians, differences and fits."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.lab.differences import difference
from epochtop.engine.lab.statistics import figure, fit, grouped, with_spread
from epochtop.engine.protocol.quantities import format_quantity

COSTS = st.floats(1e-7, 1e-1)


def rows(times: list[float], **labels: object) -> list[dict[str, object]]:
    return [{**labels, "round": turn, "seconds": seconds} for turn, seconds in enumerate(times)]


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60))
def test_a_figure_is_the_median_within_its_quartiles(values: list[float]) -> None:
    actual = figure(values)
    assert actual.median == pytest.approx(statistics.median(values))
    assert min(values) <= actual.low <= actual.median <= actual.high <= max(values)
    assert actual.count == len(values)


@given(step=COSTS, read=COSTS, noise=st.floats(0, 0.01), seed=st.integers(0, 10**6))
def test_costs_that_were_planted_are_fitted_back(step: float, read: float, noise: float, seed: int) -> None:
    chance = random.Random(seed)
    terms = [(20_000, 20_000 // every if every else 0) for every in (1, 10, 100, 200, 1000, 2000, 0)]
    times = [(n * step + r * read) * (1 + noise * chance.uniform(-1, 1)) for n, r in terms]
    actual = fit(terms, times)
    assert actual is not None
    assert actual.coefficients[0] == pytest.approx(step, rel=0.05, abs=0.05 * read)
    if read > step:  # a cost that vanishes in the noise of another is not determined to a share of itself
        assert actual.coefficients[1] == pytest.approx(read, rel=0.05)
    assert actual.worst <= 0.05


def test_a_cost_is_never_negative() -> None:
    actual = fit([(100, 0), (100, 10), (100, 100)], [1.0, 0.99, 0.9])
    assert actual is not None
    assert actual.coefficients[1] == 0
    assert actual.coefficients[0] == pytest.approx(0.0096, rel=0.05)


@pytest.mark.parametrize("terms", [[], [(0, 0)], [(1, 2), (2, 4)]])
def test_what_is_not_determined_has_no_fit(terms: list[tuple[float, float]]) -> None:
    assert fit(terms, [1.0] * len(terms)) is None


@settings(max_examples=60)
@given(effect=st.floats(0.10, 3), seed=st.integers(0, 10**6))
def test_an_effect_larger_than_the_noise_is_a_difference(effect: float, seed: int) -> None:
    chance = random.Random(seed)
    first = rows([1e-3 * (1 + effect) * chance.uniform(0.99, 1.01) for _ in range(9)])
    second = rows([1e-3 * chance.uniform(0.99, 1.01) for _ in range(9)])
    actual = difference(first, second)
    assert actual is not None
    assert actual.distinct
    assert actual.ratio.median == pytest.approx(1 + effect, rel=0.05)


@settings(max_examples=60)
@given(effect=st.floats(0, 0.02), seed=st.integers(0, 10**6))
def test_noise_larger_than_the_effect_is_not_a_difference(effect: float, seed: int) -> None:
    chance = random.Random(seed)
    noise = [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4]
    sides = [chance.sample(noise, 9) for _ in range(2)]
    ratios = sorted(a / b for a, b in zip(*sides, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    actual = difference(rows([(1 + effect) * value for value in sides[0]]), rows(sides[1]))
    assert actual is not None
    if (1 + effect) * (high - low) > abs((1 + effect) * statistics.median(ratios) - 1):
        assert not actual.distinct
        assert "no difference" in actual.words("a", "b")


def test_a_difference_is_of_the_same_round() -> None:
    busy = [1.0, 1.0, 10.0, 1.0]  # a neighbor that hits both sides of a round
    actual = difference(rows([2 * value for value in busy]), rows(busy))
    assert actual is not None
    assert actual.ratio.median == 2
    assert actual.ratio.spread == 0
    assert difference(rows([1.0]), [{"round": 5, "seconds": 1.0}]) is None


def test_two_measurements_are_not_proof() -> None:
    actual = difference(rows([2.0, 2.0]), rows([1.0, 1.0]))
    assert actual is not None
    assert not actual.distinct
    assert actual.words("a", "b") == "a and b were compared only twice, too few to be sure: 2 ×"


def test_groups_leave_out_what_is_not_a_number() -> None:
    actual = grouped(
        [{"a": 1, "t": 2.0}, {"a": 1, "t": None}, {"a": 1, "t": math.inf}, {"a": 2, "t": 3}, {"a": 1, "t": 4.0}],
        ("a",),
        "t",
    )
    assert {key: (value.median, value.count) for key, value in actual.items()} == {(1,): (3.0, 2), (2,): (3.0, 1)}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (61.4e-6, "s", "61.4 µs"),
        (2.5, "s", "2.50 s"),
        (0.25, "s", "250 ms"),
        (3e-9, "s", "3.00 ns"),
        (2.5 * 2**30, "B", "2.50 GiB"),
        (1536, "B/s", "1.50 KiB/s"),
        (12345, "steps", "12,345 steps"),
        (42, "%", "42.0 %"),
        (None, "s", "—"),
        (math.nan, "s", "—"),
        (0.0, "s", "0 ns"),
    ],
)
def test_quantities_have_three_digits_and_the_unit_that_suits(value: float | None, unit: str, text: str) -> None:
    assert format_quantity(value, unit) == text


def test_one_measurement_has_no_spread_to_show() -> None:
    assert with_spread(figure([1.0])) == "1.00 s (once)"
    assert with_spread(figure([1.0, 2.0, 3.0])) == "2.00 s (1.50 s … 2.50 s)"
