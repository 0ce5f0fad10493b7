"""Sizes grow until one would take too long, and that one is never tried."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, NoFields, Stopped
from epochtop.engine.lab.instruments.sampling import Case
from epochtop.engine.lab.instruments.sizes import grow, longest_s
from epochtop.engine.protocol.spec import Invalid, RunSpec


def bench() -> ExperimentContext:
    return ExperimentContext(fields=NoFields(), spec=RunSpec(), devices=("cpu",), budget_s=1.0, folder=Path())


def candidates(
    works: list[int], tried: list[int], fails_at: int = -1, refused_at: int = -1
) -> list[tuple[float, Callable[[], Case]]]:
    """Cases that take a second for every unit of work."""

    def make(work: int) -> Case:
        if work == refused_at:
            raise Invalid("batch_size", f"no {work}")

        def run(times: int) -> float:
            tried.append(work)
            if work == fails_at:
                raise RuntimeError(f"no {work}")
            return float(times * work)

        return Case(partial(dict, work=work), run)

    return [(float(work), lambda work=work: make(work)) for work in works]  # type: ignore[misc]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8, unique=True), st.integers(0, 1000))
def test_cases_end_before_the_first_that_would_take_longer(works: list[int], most_s: int) -> None:
    works.sort()
    tried: list[int] = []
    grown = grow(bench(), candidates(works, tried), most_s)
    expected = [work for work in works[1:] if work <= most_s]
    assert [case.record()["work"] for case in grown.cases] == [works[0], *expected]
    assert set(tried) == {works[0], *expected}
    left = works[1 + len(expected) :]
    assert grown.expected_s == (pytest.approx(left[0]) if left else None)
    assert grown.error is None


def test_a_case_that_fails_ends_them_and_is_left_out() -> None:
    grown = grow(bench(), candidates([1, 2, 4], [], fails_at=2), 100.0)
    assert [case.record()["work"] for case in grown.cases] == [1]
    assert str(grown.error) == "no 2"
    assert grown.expected_s is None


def test_a_case_that_is_refused_ends_them_with_the_reason() -> None:
    grown = grow(bench(), candidates([1, 2, 4], [], refused_at=2), 100.0)
    assert [case.record()["work"] for case in grown.cases] == [1]
    assert str(grown.error) == "batch_size: no 2"


def test_growing_ends_when_it_is_asked_to() -> None:
    asked = bench()
    asked.stop.set()
    with pytest.raises(Stopped):
        grow(asked, candidates([1], []), 1.0)


@given(st.floats(0.01, 100), st.sampled_from((2.0, 4.0, 8.0)), st.integers(1, 9))
def test_all_sizes_fit_into_the_time_that_is_shared_out(seconds: float, growth: float, rounds: int) -> None:
    longest = longest_s(seconds, growth, rounds)
    every = sum(longest / growth**smaller for smaller in range(60))
    assert every * (rounds + 4) == pytest.approx(seconds, rel=1e-6)
