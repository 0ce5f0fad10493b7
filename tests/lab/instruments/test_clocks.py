"""Clocks by a planted machine: interruptions do not count on the CPU, and every repetition is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.instruments import clocks
from epochtop.engine.lab.instruments.clocks import cpu_wait_s, undisturbed


class Machine:
    """Work of `once_s` seconds; some of the pieces are interrupted for 5 ms by another program."""

    def __init__(self, once_s: float, interrupted: int) -> None:
        """One of `interrupted` pieces is interrupted; 0 for none."""
        self._once_s, self._interrupted, self._pieces = once_s, interrupted, 0
        self.times, self.waited_s = 0, 0.0

    def timed(self, times: int) -> float:
        self.times += times
        self._pieces += 1
        stop_s = 5e-3 if self._interrupted and self._pieces % self._interrupted == 0 else 0.0
        self.waited_s += stop_s
        return times * self._once_s + stop_s


def unknown_s() -> float:
    """The wait for a CPU on a system that does not tell it."""
    return 0.0


@given(once_s=st.floats(1e-8, 1e-1), times=st.integers(1, 3000), interrupted=st.sampled_from([0, 3, 5]))
def test_every_repetition_is_run(once_s: float, times: int, interrupted: int) -> None:
    machine = Machine(once_s, interrupted)
    undisturbed(machine.timed, unknown_s)(times)
    assert machine.times == times


@given(once_s=st.floats(1e-7, 1e-2), interrupted=st.sampled_from([0, 3, 5]))
def test_interrupted_pieces_do_not_count(once_s: float, interrupted: int) -> None:
    times = max(20, round(0.02 / once_s))
    seconds = undisturbed(Machine(once_s, interrupted).timed, unknown_s)(times)
    assert seconds == pytest.approx(times * once_s)


def test_a_few_repetitions_have_no_median_and_count_as_they_are() -> None:
    assert undisturbed(Machine(1e-2, 1).timed, unknown_s)(2) == pytest.approx(2 * 1e-2 + 2 * 5e-3)


@given(once_s=st.floats(1e-7, 1e-2), times=st.integers(1, 200))
def test_the_wait_for_a_cpu_does_not_count_even_if_every_piece_has_one(once_s: float, times: int) -> None:
    machine = Machine(once_s, interrupted=1)
    assert undisturbed(machine.timed, lambda: machine.waited_s)(times) == pytest.approx(times * once_s)


def test_a_wait_outside_the_timed_part_is_not_taken_from_it() -> None:
    waits_s = iter(range(100))
    assert undisturbed(lambda times: times * 1e-2, lambda: float(next(waits_s)))(5) == pytest.approx(5e-2)


@pytest.mark.parametrize(("text", "seconds"), [("900 2500000 7\n", 2.5e-3), ("", 0.0), ("900\n", 0.0), (None, 0.0)])
def test_the_wait_for_a_cpu_is_the_kernels_or_unknown(
    text: str | None, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "schedstat").write_text(text)
    monkeypatch.setattr(clocks, "SCHEDULING", str(tmp_path / "schedstat"))
    assert cpu_wait_s() == pytest.approx(seconds)
