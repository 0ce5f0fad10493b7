"""The lab measures several cases in turn."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from epochtop.engine.lab.experiment import ExperimentContext, NoFields, Stopped
from epochtop.engine.lab.instruments.sampling import SAMPLE_S, Case, interleave
from epochtop.engine.protocol.spec import RunSpec


def bench(budget_s: float) -> ExperimentContext:
    return ExperimentContext(NoFields(), RunSpec(), ("cpu",), budget_s, Path())


class Planted:
    """Work that reports a planted time and takes none."""

    def __init__(self, name: str, seconds: float, log: list[str] | None = None) -> None:
        self.name, self.seconds, self.log = name, seconds, log if log is not None else []

    def __call__(self, times: int) -> float:
        self.log.append(self.name)
        return self.seconds * times


def test_rounds_take_every_case_and_every_other_one_backwards() -> None:
    log: list[str] = []
    cases = [Case(partial(dict, case=name), Planted(name, 0.1, log)) for name in "abc"]
    actual = list(interleave(bench(60), cases, most_rounds=3))
    assert [row["case"] for row in actual] == list("abccbaabc")
    assert [row["round"] for row in actual] == [0] * 3 + [1] * 3 + [2] * 3
    assert log[:6] == list("aabbcc"), "each is warmed up before the first round"


def test_a_row_is_the_time_of_doing_it_once() -> None:
    actual = list(interleave(bench(60), [Case(dict, Planted("a", 3e-6))], most_rounds=2))
    assert [row["seconds"] for row in actual] == [pytest.approx(3e-6)] * 2
    repeats = actual[0]["repeats"]
    assert isinstance(repeats, int)
    assert repeats * 3e-6 == pytest.approx(SAMPLE_S, rel=0.1)


@pytest.mark.parametrize("call", [2, 3, 4])
def test_an_interruption_of_the_warm_up_leaves_measurements_as_long(call: int) -> None:
    calls = 0

    def interrupted(times: int) -> float:
        nonlocal calls
        calls += 1
        return times * 3e-6 + (0.02 if calls == call else 0.0)

    actual = list(interleave(bench(60), [Case(dict, interrupted)], most_rounds=1))
    repeats = actual[0]["repeats"]
    assert isinstance(repeats, int)
    assert repeats * 3e-6 == pytest.approx(SAMPLE_S, rel=0.1)


def test_what_happens_once_in_so_many_is_always_within_a_measurement() -> None:
    actual = list(interleave(bench(60), [Case(dict, Planted("a", 1.0), most=2000, least=2000)], most_rounds=1))
    assert actual[0]["repeats"] == 2000


def test_no_time_is_still_time_for_one_round() -> None:
    cases = [Case(partial(dict, case=name), Planted(name, 10.0)) for name in "ab"]
    assert [row["case"] for row in interleave(bench(0), cases)] == ["a", "b"]


def test_it_ends_between_two_measurements_when_asked() -> None:
    where = bench(60)
    rows = interleave(where, [Case(dict, Planted("a", 1.0))])
    next(rows)
    where.stop.set()
    with pytest.raises(Stopped):
        next(rows)
