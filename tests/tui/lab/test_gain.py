"""What a setting gained: a planted step of the experiment against a planted speed of the run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.events import Prepared
from epochtop.engine.protocol.experiments import ExperimentRequest, Verdict
from epochtop.engine.protocol.fields import with_setting
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.lab.gain import gained, measured_step
from epochtop.tui.state.experiment import ExperimentState
from epochtop.tui.state.run import RunState
from tests.support.lab_runs import STEP_S, ended, rows_of_reads
from tests.support.runs import CREATED, finished, losses_like_iris, started


def lab_of(rows: list[Row], setting: dict[str, str], **spec: object) -> ExperimentState:
    record = RunRecord(
        spec=RunSpec(**spec),  # type: ignore[arg-type]
        experiment=ExperimentRequest(name="reads"), created=CREATED, host="box", user="ada", pid=1, versions={},
    )  # fmt: skip
    state = ExperimentState(record, "reads-7f3a")
    state.rows = rows
    state.apply(ended(Verdict(finding="f", evidence=(), next_step="n", uncertainty="u", setting=setting)))
    return state


def run_of(steps_per_second: float, **spec: object) -> RunState:
    state = RunState(lab_of([], {}, **spec).record)
    state.apply(started(2_000))
    state.apply(finished("finished", losses_like_iris(2_000), steps_per_second=steps_per_second))
    return state


def steps(*seconds: float, **labels: str) -> list[Row]:
    return [
        {"kind": "step", "device": "cpu", "round": turn, "seconds": value, **labels}
        for turn, value in enumerate(seconds)
    ]


def test_rows_of_steps_are_compared_with_the_run() -> None:
    lab = lab_of(steps(1e-3, 1.1e-3, 0.9e-3), {"executor": "graph"}, executor="eager")
    gain = gained(lab, run_of(10_000))
    assert gain.startswith("executor=graph made it 10 × as fast (1.00 ms per step before, 100 µs now)")
    assert gain.endswith("before: measured by reads-7f3a; now: the complete run, including evaluations and checkpoints")


def test_a_step_within_the_spread_is_not_a_difference() -> None:
    lab = lab_of(steps(0.9e-3, 1e-3, 1.2e-3), {"executor": "graph"})
    assert "made no measurable difference" in gained(lab, run_of(1 / 1.05e-3))


def test_a_slower_run_is_reported_too() -> None:
    assert "made it slower: 2 × as long" in gained(lab_of(steps(*[1e-3] * 3), {"threads": "8"}), run_of(500))


def test_the_executor_that_the_job_had_is_compared() -> None:
    rows = steps(*[1e-3] * 3, executor="eager") + steps(*[1e-4] * 3, executor="graph")
    assert "made it 10 × as fast" in gained(lab_of(rows, {"executor": "graph"}), run_of(10_000))
    lab = lab_of(rows, {"executor": "eager"}, executor="graph")
    assert "made it slower: 10 × as long" in gained(lab, run_of(1_000))


def test_of_several_ways_the_job_s_own_is_compared() -> None:
    rows = [{**row, "own": 1} for row in steps(*[1e-3] * 3, way="fp32")]
    rows += [{**row, "own": 0} for row in steps(*[5e-3] * 3, way="fp16")]
    assert "made it 2 × as fast" in gained(lab_of(rows, {"precision": "bf16"}), run_of(2_000))


def test_of_several_numbers_of_threads_the_job_s_own_is_compared() -> None:
    rows = [{**row, "threads": number} for number in (1, 2, 4) for row in steps(1e-3 * number, 1e-3 * number)]
    step = measured_step(rows, "cpu", RunSpec(threads=2), {"threads": "1"})
    assert step is not None
    assert step.median == 2e-3
    marked = [{**row, "own": int(row["threads"] == 4)} for row in rows]
    step = measured_step(marked, "cpu", RunSpec(), {"threads": "1"})
    assert step is not None
    assert step.median == 4e-3


def test_no_worker_is_not_taken_for_all_of_them() -> None:
    rows = [{**row, "workers": number} for number in (0, 4) for row in steps(1e-3 * (1 + number))]
    step = measured_step(rows, "cpu", RunSpec(workers=0), {"workers": "4"})
    assert step is not None
    assert step.median == 1e-3


def test_another_device_is_compared_with_the_one_that_the_job_would_take() -> None:
    rows = [{**row, "kind": "job", "device": "cuda:0"} for row in steps(*[1e-3] * 3)]
    rows += [{**row, "kind": "job"} for row in steps(*[1e-4] * 3)]
    lab = lab_of(rows, {"device": "cpu"})
    lab.apply(Prepared(time=CREATED, budget_s=45, devices=("cpu", "cuda:0"), machine={}, cannot_see=()))
    assert "made it 10 × as fast" in gained(lab, run_of(10_000))


def test_against_auto_the_eager_steps_are_compared_and_the_text_says_so() -> None:
    rows = steps(*[1e-3] * 3, executor="eager") + steps(*[1e-4] * 3, executor="graph")
    assert "in eager steps, as auto starts" in gained(lab_of(rows, {"executor": "graph"}), run_of(10_000))
    assert "auto" not in gained(lab_of(rows, {"executor": "graph"}, executor="eager"), run_of(10_000))


def test_experiments_measure_one_process_of_several() -> None:
    lab = lab_of(steps(*[1e-3] * 3), {"processes": "1"}, batch_size=30, processes=2)
    assert "made no measurable difference" in gained(lab, run_of(1_000, batch_size=30))


def test_a_larger_batch_gains_by_the_row() -> None:
    lab = lab_of(steps(*[1e-3] * 3), {"batch_size": "0"}, batch_size=30)
    gain = gained(lab, run_of(500))
    assert "made it 2 × as fast" in gain  # 120 rows in 2 ms after 30 in 1 ms
    assert "per row before" in gain


def test_steps_of_another_device_do_not_count() -> None:
    rows = [{**row, "device": "cuda:0"} for row in steps(1e-3)]
    assert measured_step(rows, "cpu", RunSpec(), {}) is None
    assert "measured no steps to compare with" in gained(lab_of(rows, {"executor": "graph"}), run_of(10_000))


@given(st.integers(0, 50))
def test_a_run_without_reads_measures_the_step_too(seed: int) -> None:
    step = measured_step(rows_of_reads(seed=seed), "cpu", RunSpec(), {"executor": "graph"})
    assert step is not None
    assert step.median == pytest.approx(STEP_S * 1.01, rel=0.02)


def test_a_failed_run_has_no_gain_to_report() -> None:
    state = RunState()
    assert "the run did not finish" in gained(lab_of([], {"executor": "graph"}), state)


def test_a_setting_changes_its_fields_alone() -> None:
    spec = RunSpec(hidden=(64, 32), learning_rate=0.05, name="mine", nesterov=True, momentum=0.9)
    changed = with_setting(spec, {"executor": "graph", "threads": "2"})
    assert changed == RunSpec(
        hidden=(64, 32), learning_rate=0.05, name="mine", nesterov=True, momentum=0.9, executor="graph", threads=2
    )
    with pytest.raises(Invalid):
        with_setting(spec, {"threads": "many"})
