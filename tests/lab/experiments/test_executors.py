"""The experiment `executors`: planted costs are recovered, and a real measurement covers all executors."""

from __future__ import annotations

import os
import random
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.lab.experiment import ExperimentContext, Stopped
from epochtop.engine.lab.experiments.executors import measure as executors_measure
from epochtop.engine.lab.experiments.executors.breakeven import costs
from epochtop.engine.lab.experiments.executors.schema import Fields
from epochtop.engine.lab.experiments.executors.subprocess import ExecutorProcess, NotReady, ProgramReady, SetUpRequest
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import interleave
from epochtop.engine.lab.instruments.stepping import Stepping, empty_cache, set_up
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import select
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows
from tests.support.engines import HANGING_S, wait_until

EXECUTORS = StoredRows("executors")

EAGER_S = 1e-4


def planted(
    setup_s: float, step_s: float, steps: int, noise: float = 0.01, name: str = "graph", seed: int = 1
) -> list[Row]:
    """Rows as the experiment measures them: eager steps take 100 µs, another executor's `step_s`.

    A busy neighbor makes whole rounds up to 20 % slower or faster; `noise` hits the other executor's steps alone.
    """
    rows: list[Row] = [{"kind": "job", "device": "cpu", "steps": steps, "threads": 1}]
    for turn, wrong in enumerate((-0.01, 0.01, 0.0)):
        rows.append(setting_up("eager", 0.0, turn))
        rows.append(setting_up(name, setup_s * (1 + wrong), turn))
    draw = random.Random(seed)
    neighbor, alone = (draw.sample([place / 7 for place in range(-7, 8)], 15) for _ in range(2))
    for turn in range(15):
        for executor, seconds in (("eager", EAGER_S), (name, step_s * (1 + noise * alone[turn]))):
            labels: Row = {"kind": "step", "device": "cpu", "executor": executor, "round": turn}
            rows.append({**labels, "seconds": seconds * (1 + 0.2 * neighbor[turn])})
    return rows


def setting_up(name: str, seconds: float, turn: int, cache: str = "new") -> Row:
    return {"kind": "setup", "device": "cpu", "executor": name, "cache": cache, "round": turn, "seconds": seconds}


def context(folder: Path, budget_s: float = 3.0, **fields: object) -> ExperimentContext:
    return ExperimentContext(
        fields=msgspec.convert(fields, Fields),
        spec=RunSpec(threads=1, device="cpu"),
        devices=("cpu",),
        budget_s=budget_s,
        folder=folder,
        quick=True,
    )


# --- planted truths ----------------------------------------------------------------------------------------------


@given(setup_s=st.floats(0.01, 100), share=st.floats(0.05, 0.8))
def test_planted_costs_give_the_break_even_within_5_percent(setup_s: float, share: float) -> None:
    actual = costs(EXECUTORS.measurements(planted(setup_s, share * EAGER_S, 1000)))["graph"]
    even = actual.pays_from(actual.first.median)
    assert even == pytest.approx(setup_s / (EAGER_S - share * EAGER_S), rel=0.05)


@given(setup_s=st.floats(0.01, 100), share=st.floats(0.05, 0.8), times=st.sampled_from([0.3, 0.8, 1.25, 3.0]))
def test_the_verdict_follows_from_which_side_of_the_break_even_the_job_is(
    setup_s: float, share: float, times: float
) -> None:
    steps = max(1, round(times * setup_s / (EAGER_S - share * EAGER_S)))
    verdict = EXECUTORS.conclude(planted(setup_s, share * EAGER_S, steps))
    if times > 1:
        assert verdict.finding.startswith("graph is best")
        assert verdict.setting == {"executor": "graph"}
    else:
        assert verdict.finding.startswith("eager is best")
        assert verdict.setting == {}


@given(seed=st.integers(0, 10**6), effect=st.floats(-0.02, 0.02))
def test_planted_noise_larger_than_the_effect_gives_no_difference(seed: int, effect: float) -> None:
    verdict = EXECUTORS.conclude(planted(1.0, EAGER_S * (1 - effect), 10**9, noise=0.3, seed=seed))
    assert verdict.finding.startswith("no difference between steps of eager and of graph")
    assert "no difference between graph and eager" in " ".join(verdict.evidence)
    assert verdict.setting == {}


def test_a_slower_executor_never_pays() -> None:
    rows = planted(1.0, 3 * EAGER_S, 10**9)
    actual = costs(EXECUTORS.measurements(rows))["graph"]
    assert actual.pays_from(1.0) is None
    verdict = EXECUTORS.conclude(rows)
    assert verdict.finding.startswith("eager is best")
    assert "it never pays" in " ".join(verdict.evidence)
    assert verdict.setting == {}
    assert EXECUTORS.conclude(rows, spec=RunSpec(executor="graph")).setting == {"executor": "eager"}


def test_a_setting_that_the_run_has_already_is_not_suggested() -> None:
    rows = planted(1.0, EAGER_S / 10, 10**6)
    assert EXECUTORS.conclude(rows, spec=RunSpec(executor="graph")).setting == {}
    assert EXECUTORS.conclude(rows, spec=RunSpec(executor="compile")).setting == {"executor": "graph"}


def test_a_set_up_from_the_cache_has_a_break_even_of_its_own() -> None:
    rows = planted(9.0, EAGER_S / 10, 10**6)
    rows += [setting_up("graph", 0.9, turn, "kept") for turn in range(3)]
    result = " ".join(EXECUTORS.conclude(rows).evidence)
    even = [float(word.replace(",", "")) for word in result.split() if word.replace(",", "").isdigit()]
    assert any(value == pytest.approx(9.0 / (0.9 * EAGER_S), rel=0.05) for value in even)
    assert any(value == pytest.approx(0.9 / (0.9 * EAGER_S), rel=0.05) for value in even)


def test_a_job_too_short_for_a_first_set_up_gains_from_one_that_is_kept() -> None:
    rows = planted(9.0, EAGER_S / 10, 50_000)  # even after 100,000 steps
    assert EXECUTORS.conclude(rows).setting == {}
    rows += [setting_up("graph", 0.9, turn, "kept") for turn in range(3)]  # even after 10,000
    verdict = EXECUTORS.conclude(rows)
    assert verdict.finding.startswith("eager is best")
    assert verdict.setting == {"executor": "graph"}
    assert "this measurement filled the cache" in verdict.next_step


def test_the_drawn_lines_cross_at_the_break_even() -> None:
    rows = planted(2.0, EAGER_S / 2, 10**5, noise=0.0)
    eager, graph = (dict(line.points) for line in EXECUTORS.conclude(rows).lines)
    even = 2.0 / (EAGER_S / 2)
    assert all((eager[steps] < graph[steps]) == (steps < even) for steps in eager)


def test_an_executor_that_does_not_fit_is_reported_with_its_reason() -> None:
    rows = [row for row in planted(1.0, EAGER_S / 2, 1000) if row.get("executor") != "graph"]
    rows.append({"kind": "left_out", "device": "cpu", "executor": "graph", "why": "its rows are streamed"})
    verdict = EXECUTORS.conclude(rows)
    assert verdict.finding.startswith("eager is the only executor that was measured")
    assert any("graph" in line and "its rows are streamed" in line for line in verdict.evidence)
    assert verdict.setting == {}


def test_any_beginning_of_the_rows_has_a_verdict() -> None:
    rows = planted(1.0, EAGER_S / 2, 10**6) + planted(30.0, EAGER_S / 3, 10**6, name="compile")
    for count in range(len(rows) + 1):
        assert EXECUTORS.conclude(rows[:count]).finding
    assert EXECUTORS.conclude([]).setting == {}


# --- real measurements -------------------------------------------------------------------------------------------


def test_eager_and_graph_are_measured_in_turn_and_compile_is_left_to_those_who_have_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors_measure, "BUILD_S", 300.0)  # on a busy machine the C compiler takes long
    threads = torch.get_num_threads()
    measured = context(tmp_path, budget_s=1.0)
    rows = list(EXECUTORS.measure(measured))
    steps = select(rows, kind="step")
    assert {row["executor"] for row in steps} == {"eager", "graph"}
    rounds = {name: {row["round"] for row in select(steps, executor=name)} for name in ("eager", "graph")}
    assert len(rounds["eager"] ^ rounds["graph"]) <= 1  # the time may end within a round
    caches = {row["cache"] for row in select(rows, kind="setup", executor="graph")}
    assert caches == {"new", "kept"}
    assert [row["executor"] for row in select(rows, kind="left_out")] == ["compile"]
    assert select(rows, kind="job")[0]["steps"] == 20_000
    assert torch.get_num_threads() == threads
    verdict = EXECUTORS.conclude(rows, measured.fields, measured.spec)
    assert any("compile was not measured" in line for line in verdict.evidence)


class SlowCompiler:
    """A process that is ready when the budget of the experiment is used up, and then takes steps."""

    def __init__(self, context: ExperimentContext, _wanted: SetUpRequest) -> None:
        self._bench = context

    def __enter__(self) -> SlowCompiler:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ready(self, _within_s: float) -> ProgramReady:
        time.sleep(self._bench.left_s() + 0.3)
        return ProgramReady(seconds=1.0)

    def __call__(self, times: int) -> float:
        time.sleep(1e-4 * times)
        return 1e-4 * times


def test_a_compiler_that_uses_up_the_budget_is_measured_more_than_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors_measure, "ExecutorProcess", SlowCompiler)
    monkeypatch.setattr(executors_measure, "LAST_S", 60.0)
    monkeypatch.setattr(executors_measure, "interleave", partial(interleave, most_rounds=4))
    measured = context(tmp_path, budget_s=1.0, compile="yes")
    measured.devices = ("cpu", "cpu")  # the second one after the budget, too
    rows = list(EXECUTORS.measure(measured))
    first, second = (place for place, row in enumerate(rows) if row["kind"] == "job")
    for of_one in (rows[first:second], rows[second:]):
        assert len({row["round"] for row in select(of_one, kind="step", executor="compile")}) > 2


def test_a_job_that_no_graph_takes_leaves_a_reason(tmp_path: Path) -> None:
    measured = context(tmp_path, budget_s=1.0, compile="no")
    measured.spec = RunSpec(threads=1, device="cpu", optimizer="adagrad", precision="fp16")
    left_out = {str(row["executor"]): str(row["why"]) for row in select(EXECUTORS.measure(measured), kind="left_out")}
    assert set(left_out) == {"graph", "compile"}
    assert "fp16" in left_out["graph"]


def test_steps_go_on_past_the_end_of_the_job() -> None:
    job = job_of(RunSpec(threads=1, epochs=10), "cpu")
    before = [weight.clone() for weight in job.model.parameters()]
    assert Stepping(job, set_up(job, "eager")[0])(25) > 0
    plain = job_of(RunSpec(threads=1, epochs=10), "cpu")
    for _ in range(25):
        plain.step()
    for weight, other, first in zip(job.model.parameters(), plain.model.parameters(), before, strict=True):
        assert torch.equal(weight, other)
        assert not torch.equal(weight, first)


def test_a_first_set_up_finds_nothing_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path))
    job = job_of(RunSpec(threads=1, seed=12), "cpu")
    for _ in range(2):
        with empty_cache(30.0):
            inside = Path(os.environ["EPOCHTOP_CACHE"])
            assert not list(inside.iterdir())
            set_up(job, "graph")
            assert list(inside.rglob("*.so"))
        assert not inside.exists()
    assert os.environ["EPOCHTOP_CACHE"] == str(tmp_path)
    assert not list(tmp_path.rglob("*.so"))


# --- in another process ------------------------------------------------------------------------------------------


def expected(executor: str, **fields: object) -> SetUpRequest:
    spec = msgspec.convert({"threads": 1, "device": "cpu", **fields}, RunSpec)
    return SetUpRequest(spec=spec, device="cpu", executor=executor)


def test_steps_are_taken_in_another_process(tmp_path: Path) -> None:
    with ExecutorProcess(context(tmp_path), expected("eager")) as process:
        assert process.ready(HANGING_S).seconds > 0
        assert process(10) > 0
        assert process(10) > 0


def test_a_job_that_does_not_fit_there_says_why(tmp_path: Path) -> None:
    with (
        ExecutorProcess(context(tmp_path), expected("graph", precision="fp16")) as process,
        pytest.raises(Unsupported, match="fp16"),
    ):
        process.ready(HANGING_S)


def test_one_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    with ExecutorProcess(context(tmp_path), expected("compile")) as process, pytest.raises(NotReady):
        process.ready(0.2)
    assert ended(process)


def test_one_is_ended_when_the_experiment_is_stopped(tmp_path: Path) -> None:
    stopped = context(tmp_path)
    stopped.stop.set()
    with ExecutorProcess(stopped, expected("compile")) as process, pytest.raises(Stopped):
        process.ready(HANGING_S)
    assert ended(process)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_ends_with_whoever_began_it(tmp_path: Path) -> None:
    with ExecutorProcess(context(tmp_path), expected("eager")) as process:
        process.ready(HANGING_S)
        assert process._process.stdin is not None
        process._process.stdin.close()  # as the system does for a process that was killed
        wait_until(lambda: ended(process))


def ended(process: ExecutorProcess) -> bool:
    return process._process.poll() is not None
