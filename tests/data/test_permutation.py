"""Computed orders of rows: every row once, another order for every key, and no pattern between neighbors."""

from __future__ import annotations

import numpy as np
import pytest

from epochtop.engine.data.permutation import MOST_LISTED_ROWS, Permutation, ShuffledSpan

BILLION = 10**9


@pytest.mark.parametrize("size", [*range(1, 70), 127, 128, 129, 1000, 4095, 4096, 4097, 99_991])
def test_every_number_has_one_place(size: int) -> None:
    for key in (0, 1, 2**63 - 2):
        assert np.array_equal(np.sort(Permutation(size, key).span(0, size)), np.arange(size))


@pytest.mark.parametrize("size", [MOST_LISTED_ROWS + 1, BILLION, 2**40 - 1, 2**62])
def test_places_of_large_permutations_have_distinct_numbers_in_range(size: int) -> None:
    numbers = Permutation(size, 7).span(size // 2, size // 2 + 50_000)
    assert len(np.unique(numbers)) == 50_000
    assert numbers.min() >= 0
    assert numbers.max() < size


def test_a_number_does_not_depend_on_which_others_are_asked_for() -> None:
    permutation = Permutation(BILLION, 3)
    span = permutation.span(1000, 1100)
    assert np.array_equal(span[20:30], permutation.span(1020, 1030))
    assert np.array_equal(span[::-7], permutation(np.arange(1000, 1100)[::-7]))


def test_two_keys_give_unrelated_orders() -> None:
    """The numbers at the same place agree by chance only: 1 of 1,000 on average."""
    size = 1000
    orders = [Permutation(size, key).span(0, size) for key in (*range(40), 2**40, 2**41, 2**62)]
    agreements = [int((a == b).sum()) for number, a in enumerate(orders) for b in orders[:number]]
    assert np.mean(agreements) == pytest.approx(1, abs=0.2)  # Poisson: 903 pairs, standard error 0.033
    assert max(agreements) < 9


def chi_square(counts: np.ndarray) -> float:
    """Pearson's statistic of counts against equal ones, in standard deviations of its distribution."""
    expected, cells = counts.sum() / counts.size, counts.size
    return float((((counts - expected) ** 2 / expected).sum() - (cells - 1)) / (2 * (cells - 1)) ** 0.5)


@pytest.mark.parametrize("size", [BILLION, 2**30, MOST_LISTED_ROWS + 1])
@pytest.mark.parametrize("key", [0, 1, 2, 12345])
def test_neighbors_in_the_order_are_independent(size: int, key: int) -> None:
    """Pairs of neighbors fill a grid of 16 × 16 evenly: of their places, their low digits, and their differences."""
    numbers = Permutation(size, key).span(0, 200_000)
    first, second = numbers[:-1], numbers[1:]
    for cells in (
        (first * 16 // size) * 16 + second * 16 // size,
        (first % 16) * 16 + second % 16,
        ((second - first) % size) * 256 // size,
        (first * 16 // size) * 16 + second % 16,
    ):
        assert abs(chi_square(np.bincount(cells, minlength=256))) < 5


def test_slices_of_a_span_are_parts_of_the_order() -> None:
    permutation = Permutation(BILLION, 3)
    span = ShuffledSpan(permutation, 500, 700)
    assert len(span) == 200
    assert np.array_equal(span[10:20], permutation.span(510, 520))
    assert np.array_equal(np.concatenate([span[:150], span[150:900]]), permutation.span(500, 700))
