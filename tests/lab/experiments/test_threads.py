"""The experiment `threads`: planted effects are found, noise is not, and torch's threads are restored."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, NoFields
from epochtop.engine.lab.experiments.threads import measure as threads_measure
from epochtop.engine.lab.experiments.threads.measure import counts
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import select
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.lab.stored_rows import StoredRows

THREADS = StoredRows("threads")


def planted(seconds_of: Callable[[int], float], usable: int, noise: float = 0.02, seed: int = 1) -> list[Row]:
    """Rows as the experiment measures them; `noise` hits every number of threads for itself, a neighbor whole rounds."""
    draw = random.Random(seed)
    places = [place / 7 for place in range(-7, 8)]
    neighbor = draw.sample(places, 15)
    alone = {number: draw.sample(places, 15) for number in counts(usable)}
    rows: list[Row] = [{"kind": "cpus", "usable": usable}]
    for turn in range(15):
        for number in counts(usable):
            factor = (1 + 0.2 * neighbor[turn]) * (1 + noise * alone[number][turn])
            rows.append({"kind": "step", "threads": number, "round": turn, "seconds": seconds_of(number) * factor})
    return rows


def owned(rows: list[Row], own: int) -> list[Row]:
    """The same where a run of the job takes `own` threads."""
    return [{**row, "own": int(row["threads"] == own)} if row["kind"] == "step" else row for row in rows]


def context(folder: Path, devices: tuple[str, ...] = ("cpu",)) -> ExperimentContext:
    return ExperimentContext(
        fields=NoFields(), spec=RunSpec(device="cpu"), devices=devices, budget_s=1.0, folder=folder
    )


@given(usable=st.integers(2, 8), seconds=st.floats(1e-5, 1.0))
def test_work_that_is_shared_well_gets_all_threads(usable: int, seconds: float) -> None:
    verdict = THREADS.conclude(planted(lambda number: seconds / number, usable))
    assert verdict.setting == {"threads": str(usable)}
    assert verdict.finding.startswith(f"{usable} threads are best")


@given(usable=st.integers(2, 8), seconds=st.floats(1e-5, 1.0), cost=st.floats(0.2, 20))
def test_threads_that_wait_for_each_other_get_one(usable: int, seconds: float, cost: float) -> None:
    verdict = THREADS.conclude(planted(lambda number: seconds * (1 + cost * (number - 1)), usable))
    assert verdict.setting == {"threads": "1"}
    assert verdict.finding.startswith("1 thread is best")


def test_of_two_numbers_that_are_alike_the_smaller_one_is_taken() -> None:
    verdict = THREADS.conclude(planted(lambda number: 1.0 if number == 1 else 0.5, 4))
    assert verdict.setting == {"threads": "2"}
    assert "more than 2 gain nothing" in verdict.finding


@given(usable=st.integers(2, 8), seed=st.integers(0, 10**6), effect=st.floats(-0.02, 0.02))
def test_planted_noise_larger_than_the_effect_gives_no_difference(usable: int, seed: int, effect: float) -> None:
    rows = planted(lambda number: 1e-3 * (1 + effect * (number - 1) / usable), 2, noise=0.3, seed=seed)
    verdict = THREADS.conclude(rows)
    assert verdict.finding.startswith("no difference between 2 threads and 1 thread larger than")
    assert verdict.setting == {}


def test_a_setting_that_the_run_has_already_is_not_suggested() -> None:
    rows = planted(lambda number: 1 / number, 4)
    assert THREADS.conclude(rows, spec=RunSpec(threads=4)).setting == {}
    assert THREADS.conclude(rows, spec=RunSpec(threads=2)).setting == {"threads": "4"}


def test_a_setting_that_a_run_chooses_by_itself_is_not_suggested() -> None:
    rows = planted(lambda number: 1 / number, 4)
    chosen = THREADS.conclude(owned(rows, 4))
    assert chosen.setting == {}
    assert chosen.next_step.startswith("keep threads=0, which chose 4 here")
    other = THREADS.conclude(owned(rows, 1))
    assert other.setting == {"threads": "4"}
    assert "chose 1 here" in other.next_step


@pytest.mark.parametrize("asked", [0, 3])
def test_the_number_that_a_run_takes_is_measured_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    monkeypatch.setattr("epochtop.engine.lab.experiments.threads.measure.usable_cpus", lambda: 2)

    def choose(spec: RunSpec, *_: object) -> list[str]:
        torch.set_num_threads(spec.threads or 2)
        return []

    monkeypatch.setattr("epochtop.engine.job.threads.choose", choose)
    rows = list(THREADS.measure(replace(context(tmp_path), spec=RunSpec(device="cpu", threads=asked))))
    marks = {(row["threads"], row["own"]) for row in select(rows, kind="step")}
    assert marks == ({(1, 0), (2, 1)} if asked == 0 else {(1, 0), (2, 0), (3, 1)})


def test_one_usable_cpu_is_reported_as_one() -> None:
    verdict = THREADS.conclude(planted(lambda _: 1e-3, 1))
    assert "1 CPU" in verdict.finding
    assert verdict.setting == {}


def test_any_beginning_of_the_rows_has_a_verdict() -> None:
    rows = planted(lambda number: 1 / number, 3)
    for count in range(len(rows) + 1):
        assert THREADS.conclude(rows[:count]).finding


@given(usable=st.integers(1, 1024))
def test_one_and_all_are_always_among_the_numbers(usable: int) -> None:
    actual = counts(usable)
    assert actual[0] == 1
    assert actual[-1] == usable
    assert actual == sorted(set(actual))
    assert len(actual) <= 12


def test_every_number_of_threads_is_measured_in_turn_and_torch_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epochtop.engine.lab.experiments.threads.measure.usable_cpus", lambda: 2)
    used: list[int] = []
    timed = threads_measure.on_threads

    def watched(number: int, run: Callable[[int], float]) -> Callable[[int], float]:
        def watching(times: int) -> float:
            used.append(torch.get_num_threads())
            assert used[-1] == number
            return run(times)

        return timed(number, watching)

    monkeypatch.setattr(threads_measure, "on_threads", watched)
    before = torch.get_num_threads()
    rows = list(THREADS.measure(context(tmp_path)))
    assert rows[0] == {"kind": "cpus", "usable": 2}
    assert {row["threads"] for row in select(rows, kind="step")} == {1, 2} == set(used)
    assert torch.get_num_threads() == before


def test_steps_whose_threads_wait_for_a_neighbor_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of ten on 2 threads takes 10 ms, the others 100 µs: (9 · 0.1 ms + 10 ms) / 10 = 1.09 ms."""
    monkeypatch.setattr("epochtop.engine.lab.experiments.threads.measure.usable_cpus", lambda: 2)

    def timed(number: int, _: Callable[[int], float]) -> Callable[[int], float]:
        steps = itertools.cycle([0.01 if number == 2 else 1e-4, *[1e-4] * 9])
        return lambda times: sum(itertools.islice(steps, times))

    monkeypatch.setattr(threads_measure, "on_threads", timed)
    rows = list(itertools.islice(THREADS.measure(context(tmp_path)), 1 + 2 * 10))
    verdict = THREADS.conclude(rows)
    assert verdict.finding.startswith("1 thread is best")
    assert verdict.estimates[0].value == pytest.approx(10.9, rel=0.2)


def test_where_one_cpu_may_be_used_the_experiment_says_what_it_cannot_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epochtop.engine.lab.experiments.threads.measure.usable_cpus", lambda: 1)
    alone = context(tmp_path)
    rows = list(THREADS.measure(alone))
    assert {row["threads"] for row in select(rows, kind="step")} == {1}
    assert any("1 CPU" in line for line in alone.cannot_see)


def test_a_device_that_is_not_the_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="threads belong to the CPU"):
        next(THREADS.measure(context(tmp_path, devices=("cuda:0",))))
