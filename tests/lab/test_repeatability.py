"""The judgment on repeated runs, from planted estimates."""

from __future__ import annotations

import pytest

from epochtop.engine.protocol.experiments import Estimate
from tests.lab.repeatability.judge import Run, judge, sign


def run(value: float, low: float, high: float, setting: str = "", truth: float | None = None) -> Run:
    one = Estimate(name="ratio", unit="×", value=value, low=low, high=high, count=9)
    planted = {"ratio": (truth, truth)} if truth is not None else {}
    return Run(finding="f", setting={"threads": setting} if setting else {}, estimates=[one], truth=planted)


def test_runs_that_agree_have_no_problem() -> None:
    judgment = judge([run(1.2 + 0.01 * turn, 1.1, 1.4, "2", truth=1.25) for turn in range(10)])
    assert judgment.problems == []
    assert judgment.settings == {"threads=2": 10}
    (one,) = judgment.estimates
    assert (one.above, one.below, one.open, one.contained, one.truth_found) == (10, 0, 0, 10, 10)


def test_an_undecided_run_contradicts_none() -> None:
    judgment = judge([run(1.2, 1.1, 1.4, "2")] * 9 + [run(1.2, 0.9, 1.5)])
    assert judgment.problems == []
    assert judgment.estimates[0].open == 1


def test_opposite_directions_and_settings_are_problems() -> None:
    judgment = judge([run(1.2, 1.1, 1.4, "2"), run(0.8, 0.7, 0.9, "1")])
    assert judgment.problems[0] == "different settings: threads=2, threads=1"
    assert "1 runs are above, 1 below" in judgment.problems[1]


def test_intervals_without_the_median_or_the_truth_are_problems() -> None:
    judgment = judge([run(1.2, 1.1, 1.3, truth=1.5)] * 8 + [run(1.6, 1.5, 1.7, truth=1.5)] * 2)
    assert judgment.problems == [
        "ratio: 8 of 10 intervals contain the median of all runs",
        "ratio: 2 of 10 intervals contain the planted truth",
    ]


@pytest.mark.parametrize(
    ("unit", "low", "high", "expected"),
    [("×", 0.9, 0.99, "below"), ("×", 0.9, 1.1, "open"), ("s", 1e-6, 2e-6, "above"), ("s", -1e-6, 2e-6, "open")],
)
def test_a_sign_is_the_side_of_the_neutral_value(unit: str, low: float, high: float, expected: str) -> None:
    assert sign(Estimate(name="n", unit=unit, value=(low + high) / 2, low=low, high=high, count=9)) == expected
