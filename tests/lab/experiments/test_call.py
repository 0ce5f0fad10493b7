"""The experiment `call`: hooks are counted, planted times are recovered, and noise is not a difference."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from epochtop.engine.lab.experiment import ExperimentContext, NoFields
from epochtop.engine.lab.experiments.call import measure as call_measure
from epochtop.engine.lab.experiments.call.measure import called
from epochtop.engine.lab.experiments.call.schema import CALL, FORWARD
from epochtop.engine.lab.instruments.jobs import PlainLoop, job_of
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import select
from epochtop.engine.protocol.experiments import Estimate, Verdict
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

CALLS = StoredRows("call")

FORWARD_S = 1e-7


def planted(
    more_s: float, calls: int = 4, step_s: float = 1e-3, without_s: float = 1e-3, noise: float = 0.02, seed: int = 1
) -> list[Row]:
    """Rows as the experiment measures them: forward takes 100 ns, a call `more_s` more, and a step `step_s`."""
    draw = random.Random(seed)
    places = [place / 7 for place in range(-7, 8)]
    rows: list[Row] = [
        {"kind": "hooks", "way": CALL, "calls": 100, "order": "before, forward, after", "hook_after": 100},
        {"kind": "hooks", "way": FORWARD, "calls": 100, "order": "forward", "hook_after": 0},
        {"kind": "modules", "device": "cpu", "loop": "plain", "calls": calls},
        {"kind": "modules", "device": "cpu", "loop": "epochtop", "calls": 0},
    ]
    timed: list[tuple[Row, float]] = [
        ({"kind": "call", "module": "empty", "way": CALL}, FORWARD_S + more_s),
        ({"kind": "call", "module": "empty", "way": FORWARD}, FORWARD_S),
        ({"kind": "step", "device": "cpu", "way": CALL}, step_s),
        ({"kind": "step", "device": "cpu", "way": FORWARD}, without_s),
    ]
    wrong = [draw.sample(places, 15) for _ in timed]
    for turn in range(15):
        for (labels, seconds), alone in zip(timed, wrong, strict=True):
            rows.append({**labels, "round": turn, "seconds": seconds * (1 + noise * alone[turn])})
    return rows


def context(folder: Path, spec: RunSpec, budget_s: float = 1.0) -> ExperimentContext:
    return ExperimentContext(fields=NoFields(), spec=spec, devices=("cpu",), budget_s=budget_s, folder=folder)


def share_in(verdict: Verdict) -> Estimate:
    """The fraction of a step, in percent."""
    return next(one for one in verdict.estimates if one.unit == "%")


# --- planted truths ----------------------------------------------------------------------------------------------


@given(more_s=st.floats(2e-7, 1e-5), calls=st.integers(1, 50))
def test_the_planted_share_of_a_step_comes_out_within_5_percent(more_s: float, calls: int) -> None:
    step_s = 1e-3
    verdict = CALLS.conclude(planted(more_s, calls, step_s, without_s=step_s))
    truth = calls * more_s / step_s
    share = share_in(verdict)
    assert share.value == pytest.approx(100 * truth, rel=0.05, abs=0.01)
    assert share.low <= 100 * truth <= share.high
    assert "by count" in verdict.finding


@given(share=st.floats(0.1, 0.6))
def test_a_step_that_is_much_shorter_without_calls_widens_the_share_to_both_methods(share: float) -> None:
    verdict = CALLS.conclude(planted(1e-6, step_s=1e-3, without_s=(1 - share) * 1e-3, noise=0.01))
    both = share_in(verdict)
    assert both.low == pytest.approx(0.4, abs=0.05), "4 calls of 1 µs in 1 ms"
    assert both.high == pytest.approx(100 * share, abs=3)
    assert both.value == pytest.approx(0.4, abs=0.05), "the count, however often the other method is seen"
    assert "by leaving them out" in verdict.finding


def test_a_step_that_agrees_with_the_count_is_reported_as_such() -> None:
    verdict = CALLS.conclude(planted(1e-5, step_s=1e-3, without_s=0.96e-3))
    assert share_in(verdict).value == pytest.approx(4, abs=0.2)
    assert any("this agrees with the count" in line for line in verdict.evidence)


@given(seed=st.integers(0, 10**6), effect=st.floats(-0.02, 0.02))
def test_planted_noise_larger_than_the_effect_gives_no_difference(seed: int, effect: float) -> None:
    verdict = CALLS.conclude(planted(effect * FORWARD_S, noise=0.4, seed=seed))
    assert verdict.finding.startswith("no difference between model(x) and model.forward(x) larger than")
    assert "in a step" not in verdict.finding


def test_counted_hooks_are_in_the_finding() -> None:
    finding = CALLS.conclude(planted(1e-6)).finding
    assert "hooks ran in 100 of 100 calls of model(x)" in finding
    assert "in 0 of 100 of model.forward(x)" in finding


def test_any_beginning_of_the_rows_has_a_verdict() -> None:
    rows = planted(1e-6)
    for count in range(len(rows) + 1):
        conclusion = CALLS.conclude(rows[:count])
        assert conclusion.finding
        assert conclusion.setting == {}
    assert CALLS.conclude(list(reversed(rows))).finding


# --- real measurements -------------------------------------------------------------------------------------------


def test_hooks_run_by_a_call_and_not_by_forward(tmp_path: Path) -> None:
    before = nn.Module.__call__, torch.get_num_threads()
    rows = list(CALLS.measure(context(tmp_path, RunSpec(threads=1, device="cpu"))))
    by_call, by_forward = select(rows, kind="hooks")
    assert (by_call["hook_before"], by_call["forward"], by_call["hook_after"]) == (100, 100, 100)
    assert by_call["order"] == "hook before, forward, hook after"
    assert (by_forward["hook_before"], by_forward["forward"], by_forward["hook_after"]) == (0, 100, 0)
    assert {row["way"] for row in select(rows, kind="step")} == {CALL, FORWARD}
    assert {row["module"] for row in select(rows, kind="call")} == {"empty", "linear"}
    assert (nn.Module.__call__, torch.get_num_threads()) == before


@pytest.mark.parametrize("hidden", [(), (10,), (10, 10, 10)])
def test_modules_called_in_a_step_are_counted(hidden: tuple[int, ...]) -> None:
    plain = PlainLoop(job_of(RunSpec(threads=1, hidden=hidden), "cpu"))
    assert called(plain.step) == len(list(plain.model.modules()))


def test_a_step_without_calls_is_the_same_step() -> None:
    spec = RunSpec(threads=1)
    loops = [PlainLoop(job_of(spec, "cpu")) for _ in range(2)]
    for loop, way in zip(loops, (CALL, FORWARD), strict=True):
        assert call_measure._steps("cpu", way, loop).run(7) > 0
    for one, other in zip(loops[0].model.parameters(), loops[1].model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_without_calls_runs_no_hook_and_leaves_calls_as_they_were() -> None:
    plain, before = PlainLoop(job_of(RunSpec(threads=1), "cpu")), nn.Module.__call__
    run = call_measure._steps("cpu", FORWARD, plain).run
    assert called(lambda: run(3)) == 0
    assert nn.Module.__call__ is before
    plain.criterion = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        run(1)
    assert nn.Module.__call__ is before


TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from epochtop import Task


def make_task():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[1].register_forward_hook(lambda module, inputs, output: output * 2)
    x = torch.randn(60, 4)
    return Task(model=model, train=TensorDataset(x, torch.arange(60) % 3))
"""


def test_a_model_with_hooks_of_its_own_is_not_timed_without_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TASK)
    spec = RunSpec(threads=1, device="cpu", batch_size=20, task=f"{tmp_path / 'mine.py'}:make_task")
    custom = context(tmp_path, spec)
    rows = list(CALLS.measure(custom))
    assert {row["way"] for row in select(rows, kind="step")} == {CALL}
    assert any("hooks of its own" in line for line in custom.cannot_see)
    assert CALLS.conclude(rows, spec=spec).finding
