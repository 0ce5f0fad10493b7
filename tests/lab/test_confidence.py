"""Intervals contain the true median as often as they claim, in samples whose median is known."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.confidence import (
    bootstrap_interval,
    drift,
    median_interval,
    repeat_interval,
    undisturbed,
)

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(values=VALUES)
def test_an_interval_contains_the_median_of_its_values(values: list[float]) -> None:
    for interval in (median_interval, bootstrap_interval, repeat_interval):
        low, high = interval(values)
        assert low <= statistics.median(values) <= high


@pytest.mark.parametrize("count", [3, 5, 8, 15, 50])
@pytest.mark.parametrize("tail", [0.3, 2.0])
def test_an_interval_contains_the_median_of_the_source(count: int, tail: float) -> None:
    chance = random.Random(count)
    samples = ([chance.lognormvariate(0, tail) for _ in range(count)] for _ in range(1000))
    contained = sum(low <= 1 <= high for low, high in map(median_interval, samples))
    assert contained / 1000 >= (0.9 if count < 5 else 0.98)


def test_a_neighbor_that_stays_for_several_values_widens_the_bootstrap() -> None:
    chance = random.Random(1)
    alone, with_neighbor = 0, 0
    for _ in range(100):
        noise = [chance.gauss(0, 1) for _ in range(60)]
        drift = [3 * (turn // 6 % 2) * chance.choice((0, 1)) for turn in range(60)]
        in_runs = [value + drift[turn // 6 * 6] for turn, value in enumerate(noise)]
        low, high = bootstrap_interval(in_runs)
        alone += low <= 0 <= high
        mixed = in_runs[:]
        chance.shuffle(mixed)
        mixed_low, mixed_high = bootstrap_interval(mixed)
        with_neighbor += high - low > mixed_high - mixed_low
    assert with_neighbor >= 60


@pytest.mark.parametrize(
    ("count", "outside"), [(8, 0), (15, 2), (20, 3), (50, 15)]
)  # two-sided sign test at 1 %, from a table of the binomial distribution
def test_the_interval_is_that_of_the_sign_test(count: int, outside: int) -> None:
    assert median_interval([float(value) for value in range(count)]) == (outside, count - 1 - outside)


def test_the_same_values_have_the_same_interval() -> None:
    values = [random.Random(2).gauss(0, 1) for _ in range(40)]
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_the_interval_of_another_run_has_the_quartiles_however_many_values_there_are() -> None:
    values = [float(turn * 150 % 401) for turn in range(401)]  # 0 to 400, and every part of them has the same spread
    low, high = repeat_interval(values)
    assert (low, high) == (100.0, 300.0)  # the median alone is known to within 26: 2.576 · √401 / 2


@pytest.mark.parametrize(("parts", "count"), [(5, 10), (8, 16), (8, 96)])
def test_another_run_of_a_machine_that_drifts_is_in_the_interval_as_often_as_stated(parts: int, count: int) -> None:
    chance = random.Random(parts)
    tries, contained = 2000, 0
    for _ in range(tries):
        *levels, next_level = (chance.gauss(0, 1) for _ in range(parts + 1))
        run = [level + chance.gauss(0, 0.01) for level in levels for _ in range(count // parts)]
        contained += abs(next_level - statistics.median(run)) <= drift(run)
    # Student's interval of 95 % around the mean of the levels; the next one is √(1 + 1.5 / parts) from their median
    assert 0.93 <= contained / tries <= 0.96


@pytest.mark.parametrize("count", [40, 120, 400])
def test_independent_values_drift_by_no_more_than_medians_of_parts_differ(count: int) -> None:
    chance = random.Random(count)
    distances = [drift([chance.gauss(0, 1) for _ in range(count)]) for _ in range(400)]
    # the standard deviation of a median is √(π / 2 / values), that of eight values is 0.965 of it on average
    expected = 2.365 * math.sqrt(1 + 1 / 8) * 0.965 * math.sqrt(math.pi / 2 / (count / 8))
    assert statistics.fmean(distances) == pytest.approx(expected, rel=0.1)


def test_drift_widens_an_interval_only_as_far_as_values_were_measured() -> None:
    in_turn = [1.0, 100.0] * 24
    one_after_the_other = [1.0] * 23 + [50.0, 60.0] + [100.0] * 23
    assert drift(one_after_the_other) > 100 > drift(in_turn)
    assert repeat_interval(one_after_the_other) == (1.0, 100.0)


def test_too_few_values_and_equal_ones_do_not_drift() -> None:
    assert drift([float(turn) for turn in range(9)]) == 0
    assert drift([3.0] * 50) == 0


def test_runs_on_machines_that_differ_by_less_than_their_measurements_agree() -> None:
    chance = random.Random(5)
    runs = [[machine + chance.gauss(0, 1) for _ in range(60)] for machine in (chance.gauss(0, 0.3) for _ in range(100))]
    middle = statistics.median(statistics.median(run) for run in runs)
    contained = {
        interval: sum(low <= middle <= high for low, high in map(interval, runs))
        for interval in (median_interval, repeat_interval)
    }
    assert contained[median_interval] < 90 <= contained[repeat_interval]


def test_a_neighbor_in_most_measurements_does_not_change_the_least_disturbed_value() -> None:
    chance = random.Random(3)
    quiet = [1 + 0.02 * chance.random() for _ in range(60)]
    busy = [value + chance.expovariate(1) * (turn % 4 != 0) for turn, value in enumerate(quiet)]
    for values in (quiet, busy):
        value, low, high = undisturbed(values)
        assert value == pytest.approx(1.0, abs=0.03)
        assert low <= value <= high
    assert statistics.median(busy) > 1.3
    assert undisturbed([3.0, 1.0, 2.0]) == (1.0, 1.0, 3.0)
