"""Clocks by a planted machine: interruptions do not count on the CPU, and every repetition is run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.instruments.clocks import undisturbed


class Machine:
    """Work of `once_s` seconds; some of the pieces are interrupted for 5 ms by another program."""

    def __init__(self, once_s: float, interrupted: int) -> None:
        """One of `interrupted` pieces is interrupted; 0 for none."""
        self._once_s, self._interrupted, self._pieces = once_s, interrupted, 0
        self.times = 0

    def timed(self, times: int) -> float:
        self.times += times
        self._pieces += 1
        stop_s = 5e-3 if self._interrupted and self._pieces % self._interrupted == 0 else 0.0
        return times * self._once_s + stop_s


@given(once_s=st.floats(1e-8, 1e-1), times=st.integers(1, 3000), interrupted=st.sampled_from([0, 3, 5]))
def test_every_repetition_is_run(once_s: float, times: int, interrupted: int) -> None:
    machine = Machine(once_s, interrupted)
    undisturbed(machine.timed)(times)
    assert machine.times == times


@given(once_s=st.floats(1e-7, 1e-2), interrupted=st.sampled_from([0, 3, 5]))
def test_interrupted_pieces_do_not_count(once_s: float, interrupted: int) -> None:
    times = max(20, round(0.02 / once_s))
    seconds = undisturbed(Machine(once_s, interrupted).timed)(times)
    assert seconds == pytest.approx(times * once_s)


def test_a_few_repetitions_have_no_median_and_count_as_they_are() -> None:
    assert undisturbed(Machine(1e-2, 1).timed)(2) == pytest.approx(2 * 1e-2 + 2 * 5e-3)
