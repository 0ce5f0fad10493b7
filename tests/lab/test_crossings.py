"""Where one of two sides becomes faster: planted, found between the right sizes, and not found in noise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.crossings import crossing
from epochtop.engine.lab.measurements import Row

SIZES = (1, 2, 4, 8, 16, 32)
NOISE = (0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7)
"""Factors of seven rounds whose quartiles are 0.45 apart around 1."""


def side(seconds: dict[int, float], noise: dict[int, list[float]] | None = None) -> list[Row]:
    """Seven rounds of each size."""
    return [
        {"size": size, "round": turn, "seconds": took * (noise[size][turn] if noise else 1 + turn / 1000)}
        for size, took in seconds.items()
        for turn in range(7)
    ]


@given(st.floats(1.05, 100), st.integers(0, len(SIZES)))
def test_the_crossing_is_found_between_the_sizes_where_it_was_planted(times: float, place: int) -> None:
    first = side(dict.fromkeys(SIZES, 1.0))
    second = side({size: times if number < place else 1 / times for number, size in enumerate(SIZES)})
    actual = crossing(first, second, "size")
    assert actual is not None
    assert actual.below == (SIZES[place - 1] if place else None)
    assert actual.since == (SIZES[place] if place < len(SIZES) else None)
    assert actual.everywhere == (place == 0)


@given(
    st.lists(st.permutations(NOISE), min_size=len(SIZES), max_size=len(SIZES)),
    st.floats(0.8, 1.25),
)
def test_noise_that_is_larger_than_the_effect_gives_no_crossing(noise: list[list[float]], effect: float) -> None:
    first = [{**row, "seconds": 1.0} for row in side(dict.fromkeys(SIZES, 1.0))]
    second = side(dict.fromkeys(SIZES, effect), dict(zip(SIZES, noise, strict=True)))
    actual = crossing(second, first, "size")
    assert actual is not None
    assert actual.since is None


def test_a_size_that_is_lost_again_does_not_count() -> None:
    first = side(dict.fromkeys(SIZES, 1.0))
    second = side({1: 0.5, 2: 2.0, 4: 0.5, 8: 2.0, 16: 0.5, 32: 0.5})
    actual = crossing(first, second, "size")
    assert actual is not None
    assert (actual.below, actual.since) == (8, 16)


def test_sides_without_a_common_size_are_not_compared() -> None:
    assert crossing(side({1: 1.0}), side({2: 1.0}), "size") is None
    assert crossing([], [], "size") is None
