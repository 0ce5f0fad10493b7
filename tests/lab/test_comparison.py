"""Two results against planted truths: what is a difference, what is none, and what differed around them."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.lab.catalog import experiments, find
from epochtop.engine.lab.comparison import (
    ENOUGH,
    Comparison,
    Condition,
    PictureComparison,
    Result,
    comparable,
    compare,
    compare_picture,
)
from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.instruments import sampling
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.lab_runs import rows_of_reads, slower
from tests.support.runs import CREATED

STEP = Picture(title="Time of a step", kind="bars", y="seconds", series=("device", "way"), unit="s")
CURVE = Picture(title="Time", kind="lines", x="size", y="seconds", series=("way",), unit="s", where={"kind": "step"})
MACHINE = {"host": "box", "cpu": "EPYC", "load": 0.2, "torch": "2.13.0", "gpu": None}
VALUES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12)


def rows(seconds: Sequence[float], **labels: str | int) -> list[Row]:
    return [{"device": "cpu", "way": "plain", **labels, "round": turn, "seconds": s} for turn, s in enumerate(seconds)]


def outcomes(picture: Picture, before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    return [point.outcome for point in compare_picture(picture, before, after).points]


def one(before: Sequence[float], after: Sequence[float]) -> str:
    (actual,) = outcomes(STEP, rows(before), rows(after))
    return actual


def a_result(name: str = "reads-11c0", rows: Sequence[Row] = (), age_s: float = 0.0, **more: object) -> Result:
    facts = {
        "asked": ExperimentRequest(name=name.partition("-")[0]),
        "spec": RunSpec(),
        "devices": ("cpu",),
        "machine": MACHINE,
    }
    return Result(name=name, created=CREATED - age_s, rows=rows, **(facts | more))  # type: ignore[arg-type]


def differing(before: dict[str, object], after: dict[str, object], experiment: str = "reads") -> list[Condition]:
    first = a_result(f"{experiment}-0001", age_s=60, **before)
    return list(compare(find(experiment), first, a_result(f"{experiment}-0002", **after)).conditions)


# --- what is a difference ------------------------------------------------------------------------------------------


def test_equality_within_noise_is_not_a_difference_at_any_point() -> None:
    reads = find("reads").pictures[0]
    actual = outcomes(reads, rows_of_reads(9, seed=1), rows_of_reads(9, seed=2))
    assert len(actual) == 8
    assert set(actual) == {"same"}


def test_twice_the_time_at_one_point_is_found_there_and_nowhere_else() -> None:
    reads = find("reads").pictures[0]
    result = compare_picture(reads, rows_of_reads(9, seed=1), slower(rows_of_reads(9, seed=2), 2.0, every=10))
    (point,) = [point for point in result.points if point.outcome != "same"]
    assert point.outcome == "more"
    assert point.labels == {"device": "cpu", "loop": "plain", "reads": 2000}
    assert point.ratio is not None
    assert point.ratio.median == pytest.approx(2.0, rel=0.02)
    assert point.ratio.low < 2.0 < point.ratio.high
    assert result.word(point.outcome) == "slower"


@settings(max_examples=60)
@given(effect=st.floats(1 / 1.5, 1.5), rounds=st.integers(3, 40), seed=st.integers(0, 10**6))
def test_noise_larger_than_the_effect_is_never_a_difference(effect: float, rounds: int, seed: int) -> None:
    """Each side's rounds are even over 0.6 … 1.4, in any order: their quartiles are 0.8 and 1.2, half as much again."""
    noise = [0.6 + 0.8 * turn / (rounds - 1) for turn in range(rounds)]
    chance = random.Random(seed)
    sides = [chance.sample(noise, rounds) for _ in range(2)]
    assert one(sides[0], [effect * value for value in sides[1]]) == "same"


@settings(max_examples=60)
@given(effect=st.floats(1.1, 50), rounds=st.integers(3, 40), seed=st.integers(0, 10**6), down=st.booleans())
def test_an_effect_larger_than_the_noise_of_both_is_found(effect: float, rounds: int, seed: int, down: bool) -> None:
    chance = random.Random(seed)
    slow, fast = ([size * chance.uniform(0.99, 1.01) for _ in range(rounds)] for size in (effect, 1.0))
    assert one(slow, fast) == "less" if down else one(fast, slow) == "more"


@given(before=VALUES, after=VALUES)
def test_what_is_a_difference_has_quartiles_apart_and_is_the_opposite_from_the_other_side(
    before: list[float], after: list[float]
) -> None:
    actual, back = one(before, after), one(after, before)
    assert {actual, back} in ({"more", "less"}, {"same"}, {"seldom"})
    if min(len(before), len(after)) < 3:
        assert actual == "seldom"
    elif actual in ("more", "less"):
        low, high = (after, before) if actual == "less" else (before, after)
        assert statistics.quantiles(low, method="inclusive")[2] < statistics.quantiles(high, method="inclusive")[0]


@pytest.mark.parametrize("rounds", [3, 4, 5, 6, 7, 9, 15])
def test_noise_alone_seldom_passes_for_a_difference(rounds: int) -> None:
    chance = random.Random(rounds)
    sides: list[list[Row]] = [[], []]
    for point in range(2_000):
        for side in sides:
            side += rows([math.exp(chance.gauss(0, 0.03)) for _ in range(rounds)], way=str(point))
    actual = outcomes(STEP, *sides)
    assert len(actual) == 2_000
    assert sum(outcome != "same" for outcome in actual) / 2_000 < 0.02


def test_few_rounds_are_as_wide_as_their_extremes() -> None:
    """The quartiles of 1, 1 and 2 would be 1 and 1.5; a median of 2.2 would be beyond both sides' spreads."""
    assert one([1.0, 1.0, 2.0], [2.2, 2.2, 2.2]) == "more"
    assert one([1.0, 1.0, 2.0], [1.9, 1.9, 1.9]) == "same"
    assert sampling.ROUNDS == ENOUGH


@pytest.mark.parametrize("seldom", [[1.0], [1.0, 1.0]])
def test_fewer_than_three_rounds_say_nothing_however_large_the_ratio(seldom: list[float]) -> None:
    assert one(seldom, [9.0] * 20) == one([9.0] * 20, seldom) == "seldom"


def test_what_is_not_above_0_has_no_ratio_but_can_be_the_same() -> None:
    assert one([0.0] * 5, [0.0] * 5) == "same"
    assert one([0.0] * 5, [1.0] * 5) == one([1.0] * 5, [-1.0] * 5) == "unknown"


# --- points --------------------------------------------------------------------------------------------------------


def test_points_agree_in_series_and_x_and_come_in_their_order() -> None:
    labels = [("b", 8), ("a", 4), ("b", 2), ("a", 16)]
    before = [row for way, size in labels for row in rows([1.0], way=way, size=size, kind="step")]
    other = rows([1.0], way="b", size=2, kind="launch")
    actual = compare_picture(CURVE, before + other, rows([1.0], way="a", size=4, kind="step"))
    assert [(point.labels["way"], point.labels["size"]) for point in actual.points] == [
        ("b", 2),
        ("b", 8),
        ("a", 4),
        ("a", 16),
    ]


def test_a_point_of_one_result_is_named_and_not_dropped() -> None:
    before = rows([1.0] * 3, way="both") + rows([1.0] * 3, way="old")
    after = rows([1.0] * 3, way="both") + rows([1.0] * 3, way="new") + rows([1.0] * 3, way="newer")
    result = compare_picture(STEP, before, after)
    assert {str(point.labels["way"]): point.outcome for point in result.points} == {
        "both": "same", "old": "before", "new": "after", "newer": "after",
    }  # fmt: skip
    assert result.conclusion() == (
        "the only point shows no difference, 1 point is only in the result before, 2 points are only in the result after"
    )


@pytest.mark.parametrize(
    ("unit", "words"),
    [("s", "slower"), ("GFLOP/s", "faster"), ("B/s", "faster"), ("B", "larger"), ("%", "higher"), ("×", "higher")],
)
def test_more_is_reported_in_the_words_of_its_unit(unit: str, words: str) -> None:
    picture = msgspec.structs.replace(STEP, unit=unit)
    assert (
        compare_picture(picture, rows([1.0] * 3), rows([2.0] * 3)).conclusion()
        == f"the only point is {words} by 2.00 ×"
    )


def _of(**outcomes: float) -> PictureComparison:
    """A point for each; the number is how many times as long it takes afterwards."""
    before = [row for way in outcomes for row in rows([1.0] * 5, way=way)]
    after = [row for way, times in outcomes.items() for row in rows([times] * 5, way=way)]
    return compare_picture(STEP, before, after)


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (_of(a=1.4, b=1.2, c=1.1, d=1.0, e=1.0),
         "3 of 5 points are slower by up to 1.40 ×, the others show no difference"),
        (_of(a=1.4, b=1.0), "1 of 2 points is slower by 1.40 ×, the other shows no difference"),
        (_of(a=2.0, b=0.25, c=1.0),
         "1 of 3 points is slower by 2.00 ×, 1 is faster by 4.00 ×, the other shows no difference"),
        (_of(a=0.5, b=0.5, c=0.5), "all 3 points are faster by up to 2.00 ×"),
        (_of(a=1.0, b=1.0), "both points show no difference"),
        (_of(a=1.002), "the only point is slower by 0.2 %"),
        (compare_picture(STEP, rows([1.0]), rows([2.0])), "the only point has too few rounds to tell"),
        (compare_picture(STEP, rows([1.0] * 3), []), "no point was measured in both, 1 point is only in the result before"),
    ],
)  # fmt: skip
def test_a_sentence_says_how_many_differ_and_by_how_much(actual: PictureComparison, words: str) -> None:
    assert actual.conclusion() == words


# --- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", experiments(), ids=lambda each: each.name)
def test_every_experiment_has_points_to_compare(experiment: object) -> None:
    pictures = comparable(experiment)  # type: ignore[arg-type]
    assert pictures
    assert all(picture.y and picture.kind != "timeline" for picture in pictures)


@pytest.mark.parametrize(("name", "pictures"), [("transfer", 1), ("crossover", 1), ("call", 2), ("profile", 2)])
def test_rows_that_are_drawn_twice_are_compared_once(name: str, pictures: int) -> None:
    assert len(comparable(find(name))) == pictures


def test_several_pictures_are_named_in_the_conclusion() -> None:
    both = [row for kind in ("call", "step") for row in rows([1.0] * 3, kind=kind, module="linear")]
    actual = compare(find("call"), a_result("call-0001", both), a_result("call-0002", both))
    first, second = (picture.title for picture in comparable(find("call")))
    words = "the only point shows no difference"
    assert actual.conclusion() == f"{first}: {words}; {second}: {words}"


# --- two results ---------------------------------------------------------------------------------------------------


def test_before_is_the_older_one_whichever_comes_first() -> None:
    old, new = a_result("reads-0001", rows_of_reads(3), age_s=60), a_result("reads-0002", rows_of_reads(3))
    for actual in (compare(find("reads"), old, new), compare(find("reads"), new, old)):
        assert (actual.before.name, actual.after.name) == ("reads-0001", "reads-0002")


def test_a_live_result_is_compared_as_far_as_it_has_come() -> None:
    every = rows_of_reads(5)
    actual = compare(
        find("reads"), a_result("reads-0001", every, age_s=60), a_result("reads-0002", every[:10], outcome="running")
    )
    assert {point.outcome for point in actual.pictures[0].points} == {"seldom"}


@pytest.mark.parametrize("of", [(0, 0), (0, 3)])
def test_without_rows_nothing_is_claimed(of: tuple[int, int]) -> None:
    actual: Comparison = compare(
        find("reads"), *(a_result(f"reads-{n}{i}", rows_of_reads(n)) for i, n in enumerate(of))
    )
    assert actual.conclusion() in (
        "nothing was measured that can be compared",
        "no point was measured in both, 8 points are only in the result after",
    )


def test_results_of_two_experiments_and_one_alone_are_refused() -> None:
    with pytest.raises(Invalid, match="reads-1 is a result of reads, call-2 of call"):
        compare(find("reads"), a_result("reads-1"), a_result("call-2"))
    with pytest.raises(Invalid, match="with itself"):
        compare(find("reads"), a_result("reads-1"), a_result("reads-1"))


def test_equal_conditions_are_not_listed() -> None:
    same = {"asked": ExperimentRequest(name="reads", fields={"steps": "10000"}), "spec": RunSpec(name="old")}
    written = {"asked": ExperimentRequest(name="reads", fields={"steps": "1e4"}), "spec": RunSpec(name="new")}
    assert differing(same, written) == []
    assert differing({"machine": {**MACHINE, "load": 0.2}}, {"machine": {**MACHINE, "load": 0.6}}) == []


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ({}, {"machine": {**MACHINE, "torch": "2.14.0", "load": 1.2, "gpu": "RTX"}}, ["load", "torch", "gpu"]),
        ({}, {"devices": ("cpu", "cuda:0")}, ["devices"]),
        ({}, {"asked": ExperimentRequest(name="reads", fields={"steps": "5000"}, quick=True)}, ["quick", "steps"]),
        ({}, {"spec": RunSpec(hidden=(64,), threads=2)}, ["hidden", "threads"]),
        ({"machine": {}}, {"spec": RunSpec(hidden=(64,))}, ["hidden"]),
    ],
)
def test_what_differs_of_machine_devices_fields_and_job_is_reported(
    before: dict[str, object], after: dict[str, object], names: list[str]
) -> None:
    assert [one.name for one in differing(before, after)] == names


def test_a_condition_has_both_values_as_one_types_them() -> None:
    (actual,) = differing({"spec": RunSpec(hidden=(64, 32))}, {})
    assert (actual.name, actual.before, actual.after) == ("hidden", "64, 32", "10")


def test_an_experiment_without_a_job_has_no_job_that_differs() -> None:
    assert find("transfer").job is None
    assert differing({"spec": RunSpec(hidden=(64,))}, {}, "transfer") == []
