"""Accumulation, checkpointing, precision and memory: planted figures give the verdicts that follow from them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.data.dataset import LossName
from epochtop.engine.device import inventory
from epochtop.engine.lab.experiment import Experiment, ExperimentContext
from epochtop.engine.lab.experiments import accumulation, checkpointing, memory, precision
from epochtop.engine.lab.experiments.accumulation.measure import TOLERANCE, _gradients
from epochtop.engine.lab.experiments.memory.verdict import CLOSE, MEMORY_SHARE, line
from epochtop.engine.lab.experiments.precision.verdict import HIGHER_IS_BETTER
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.allocation import peak_bytes
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.metrics import Metrics
from tests.lab.stored_rows import StoredRows

MEMORY = StoredRows("memory")
ACCUMULATION = StoredRows("accumulation")
CHECKPOINTING = StoredRows("checkpointing")
PRECISION = StoredRows("precision")

SMALL = RunSpec(dataset="digits", hidden=(16, 16), batch_size=64, threads=1, device="cpu", epochs=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def planted(ways: dict[str, tuple[float, float]], noise: float = 0.005, seed: int = 0) -> list[Row]:
    """Rows of variants with these seconds per step and these peak bytes."""
    chance = random.Random(seed)
    rows: list[Row] = []
    for turn in range(9):
        for way, (seconds, size) in ways.items():
            labels: Row = {"device": "cpu", "way": way, "round": turn}
            rows.append({**labels, "kind": "step", "seconds": seconds * (1 + noise * chance.uniform(-1, 1))})
            rows.append({**labels, "kind": "memory", "bytes": size})
    return rows


def scored(rows: list[Row], scores: dict[str, float]) -> list[Row]:
    more: list[Row] = [
        {
            "kind": "accuracy",
            "device": "cpu",
            "way": way,
            "round": turn,
            "metric": "accuracy",
            "score": score,
            "epochs": 3,
        }
        for way, score in scores.items()
        for turn in range(3)
    ]
    return rows + more


# --- precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed_up", "less", "result"),
    [
        (
            1.8,
            0.45,
            "bf16 is faster than fp32: 1.8 × (1.8 … 1.8) as fast, as claimed, and needs 45% less memory, as claimed",
        ),
        (
            1.2,
            0.1,
            "bf16 is faster than fp32: 1.2 × (1.2 … 1.2) as fast, less than the claimed 1.5 ×, and needs 10% less memory, not the claimed 40%",
        ),
        (0.5, 0.0, "bf16 is slower than fp32: 2 × (2 … 2) as long, and needs 1 × the memory"),
    ],
)
def test_the_claim_is_compared_with_what_was_measured(speed_up: float, less: float, result: str) -> None:
    rows = planted({"fp32": (1e-3, 1e6), "bf16": (1e-3 / speed_up, (1 - less) * 1e6)}, noise=0)
    conclusion = PRECISION.conclude(scored(rows, {"fp32": 0.97, "bf16": 0.97}), precision.Fields())
    assert result in conclusion.finding
    assert conclusion.setting == ({"precision": "bf16"} if speed_up > 1 else {})


def test_what_is_faster_and_worse_is_not_proposed() -> None:
    rows = planted({"fp32": (1e-3, 1e6), "fp16": (4e-4, 5e5)})
    conclusion = PRECISION.conclude(scored(rows, {"fp32": 0.97, "fp16": 0.90}), precision.Fields())
    assert conclusion.setting == {}
    assert conclusion.next_step.startswith("stay with fp32")


def test_noise_larger_than_the_gain_is_not_a_difference_in_speed() -> None:
    rows = planted({"fp32": (1e-3, 1e6), "bf16": (0.98e-3, 1e6)}, noise=0.4, seed=5)
    conclusion = PRECISION.conclude(scored(rows, {"fp32": 0.97, "bf16": 0.97}), precision.Fields())
    assert "no difference between bf16 and fp32 larger than" in conclusion.finding
    assert conclusion.setting == {}


def test_what_was_compared_once_is_not_called_alike() -> None:
    rows = [row for row in planted({"fp32": (1e-3, 1e6), "bf16": (3e-3, 1e6)}) if row["round"] == 0]
    conclusion = PRECISION.conclude(rows, precision.Fields())
    assert "too few rounds to tell" in conclusion.finding
    assert "no difference" not in conclusion.finding


@pytest.mark.parametrize(("score", "seeds"), [(0.966, 3), (0.97, 1)], ids=["0.4 points worse", "one seed"])
def test_only_what_is_as_accurate_within_a_spread_is_proposed(score: float, seeds: int) -> None:
    rows = scored(planted({"fp32": (1e-3, 1e6), "bf16": (5e-4, 5e5)}), {"fp32": 0.97, "bf16": score})
    rows = [row for row in rows if row["kind"] != "accuracy" or int(row["round"] or 0) < seeds]
    assert PRECISION.conclude(rows, precision.Fields()).setting == {}


def judged(metric: str, full: float, half: float, column: str = "score", steps: tuple[int, int] = (69, 69)) -> Verdict:
    """Of bf16, twice as fast as fp32, with these figures of a metric or of the loss of held-out rows."""
    rows = planted({"fp32": (1e-3, 1e6), "bf16": (5e-4, 5e5)})
    other = {"score": "loss", "loss": "score"}[column]
    for way, value, many in (("fp32", full, steps[0]), ("bf16", half, steps[1])):
        labels: Row = {"kind": "accuracy", "device": "cpu", "way": way, "steps": many, "epochs": many / 23}
        rows += [{**labels, "round": turn, "metric": metric, column: value, other: 1.0} for turn in range(3)]
    return PRECISION.conclude(rows, precision.Fields())


@pytest.mark.parametrize(
    ("metric", "column", "full", "half", "good"),
    [
        ("accuracy", "score", 0.9, 0.95, True),
        ("accuracy", "score", 0.95, 0.9, False),
        ("r2", "score", 0.95, 0.9, False),
        ("bits_per_character", "loss", 1.5, 1.2, True),
        ("bits_per_character", "loss", 1.2, 1.5, False),
        ("mse", "loss", 1.2, 1.5, False),
        ("", "loss", 1.5, 1.2, True),
    ],
)
def test_what_is_better_is_higher_for_some_metrics_and_the_lower_loss_for_others(
    metric: str, column: str, full: float, half: float, good: bool
) -> None:
    conclusion = judged(metric, full, half, column)
    assert conclusion.setting == ({"precision": "bf16"} if good else {})
    assert any(f"of bf16 after 69 steps, 3 epochs: {half:.4f}" in line for line in conclusion.evidence)


@pytest.mark.parametrize("loss", get_args(LossName))
def test_every_metric_of_the_engine_has_a_known_direction(loss: LossName) -> None:
    """The one that is not in the list is the loss itself, in other units."""
    assert Metrics(loss, 3).main in (*HIGHER_IS_BETTER, "bits_per_character")


def test_trainings_of_different_lengths_are_not_compared() -> None:
    assert judged("accuracy", 0.9, 0.95, steps=(69, 23)).setting == {}


def test_less_than_an_epoch_does_not_tell_what_is_as_accurate() -> None:
    conclusion = judged("accuracy", 0.9, 0.95, steps=(22, 22))
    assert conclusion.setting == {}
    assert conclusion.next_step.startswith("train one run with precision=bf16 and one with fp32")
    assert judged("accuracy", 0.9, 0.95, steps=(23, 23)).setting == {"precision": "bf16"}


def test_how_far_was_trained_is_reported_where_it_is_less_than_was_asked() -> None:
    assert "after 0.304 epochs of the 10 requested" in judged("accuracy", 0.9, 0.95, steps=(7, 7)).uncertainty
    assert "requested" not in judged("accuracy", 0.9, 0.95, steps=(230, 230)).uncertainty


# --- checkpointing and accumulation ------------------------------------------------------------------------------


def test_memory_that_is_saved_is_proposed_with_what_it_costs() -> None:
    rows = planted({"kept": (1e-3, 8e6), "again": (1.3e-3, 2e6)}, noise=0)
    conclusion = CHECKPOINTING.conclude([*rows, gradients(0.0)])
    assert "has 0.25 × the peak memory of kept" in conclusion.finding
    assert "again is slower than kept: 1.3 ×" in conclusion.finding
    assert conclusion.setting == {"checkpoint_activations": "yes"}
    nothing = CHECKPOINTING.conclude(planted({"kept": (1e-3, 8e6), "again": (1.3e-3, 8e6)}))
    assert nothing.setting == {}


def gradients(deviation: float) -> Row:
    return {"kind": "gradients", "device": "cpu", "rows": 64, "deviation": deviation, "tolerance": 1e-4}


def test_gradients_beyond_the_tolerance_are_called_different() -> None:
    rows = planted({"1 × 64": (1e-3, 8e6), "4 × 16": (2e-3, 3e6)})
    same = ACCUMULATION.conclude([*rows, gradients(1e-6)], accumulation.Fields(), RunSpec(batch_size=64))
    assert "4 × 16 rows give the same gradients as 1 × 64" in same.finding
    assert "accumulate if your batch" in same.next_step
    other = ACCUMULATION.conclude([*rows, gradients(1e-2)], accumulation.Fields(), RunSpec(batch_size=64))
    assert "NOT the same gradients" in other.finding


@pytest.mark.parametrize(
    ("actual", "expected", "apart"),
    [
        ([math.nan, 1.0], [1.0, 1.0], math.inf),
        ([1.0, 1.0], [math.nan, 1.0], math.inf),
        ([math.inf, 1.0], [1.0, 1.0], math.inf),
        ([1.0, 0.0], [0.0, 0.0], math.inf),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0, -2.0], [1.0, -4.0], 0.5),
    ],
)
def test_gradients_that_are_not_numbers_are_never_the_same(
    actual: list[float], expected: list[float], apart: float
) -> None:
    same = torch.ones(3)
    assert variants.deviation([torch.tensor(actual), same], [torch.tensor(expected), same]) == apart


@pytest.mark.parametrize("deviation", [math.inf, math.nan])
def test_gradients_that_are_not_finite_are_reported_and_nothing_is_proposed(deviation: float) -> None:
    rows = planted({"1 × 64": (1e-3, 8e6), "4 × 16": (2e-3, 3e6)})
    conclusion = ACCUMULATION.conclude([*rows, gradients(deviation)], accumulation.Fields(), RunSpec(batch_size=64))
    assert "NOT the same gradients" in conclusion.finding
    assert "not finite" in conclusion.evidence[0]
    rows = [*planted({"kept": (1e-3, 8e6), "again": (1.3e-3, 2e6)}), gradients(deviation)]
    assert CHECKPOINTING.conclude(rows).setting == {}


def test_hardly_any_memory_saved_is_not_worth_a_setting() -> None:
    rows = [*planted({"kept": (1e-3, 8e6), "again": (1.7e-3, 7.999e6)}), gradients(0.0)]
    conclusion = CHECKPOINTING.conclude(rows)
    assert conclusion.setting == {}
    assert conclusion.next_step.startswith("leave checkpoint_activations off")


def test_accumulated_gradients_are_those_of_plain_torch() -> None:
    """The number in the row, found again without the engine's accumulation."""
    spec = RunSpec(dataset="digits", hidden=(16,), batch_size=16, accumulate=4, threads=1, device="cpu")
    actual = _gradients("cpu", job_of(spec, batch_size=64, accumulate=1), job_of(spec))
    job = job_of(spec)
    batches = job.batches.next_batches(4)
    whole = torch.nn.functional.cross_entropy(
        job.model(torch.cat([b.x for b in batches])), torch.cat([b.y for b in batches])
    )
    expected = torch.autograd.grad(whole, job.parts.parameters)
    for batch in batches:
        (torch.nn.functional.cross_entropy(job.model(batch.x), batch.y) / 4).backward()
    worst = max(
        float((weight.grad - gradient).abs().max() / gradient.abs().max())
        for weight, gradient in zip(job.parts.parameters, expected, strict=True)
        if weight.grad is not None
    )
    assert worst < TOLERANCE
    assert actual.deviation == pytest.approx(worst, abs=1e-6)
    assert actual.rows == 64


# --- memory ------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(fixed=st.floats(1e5, 1e9), row=st.floats(1e3, 1e7))
def test_what_was_planted_is_fitted_back_and_checked(fixed: float, row: float) -> None:
    sizes = (8, 16, 32, 64, 128, 256)
    rows: list[Row] = [
        {"kind": "peak", "device": "cpu", "batch": size, "round": turn, "peak_bytes": fixed + size * row}
        for size in sizes
        for turn in range(3)
    ]
    fitted = line(MEMORY.measurements(rows))
    assert fitted is not None
    assert fitted.coefficients == pytest.approx((fixed, row), rel=0.05)


def line_rows(off: float) -> list[Row]:
    rows: list[Row] = [{"kind": "job", "device": "cpu", "rows": 1000, "free_bytes": 10_000_000}]
    rows += [
        {"kind": "peak", "device": "cpu", "batch": size, "round": 0, "peak_bytes": 1_000_000 + 20_000 * size}
        for size in (10, 50, 100, 200)
    ]
    rows.append({"kind": "check", "device": "cpu", "batch": 350, "round": 0, "peak_bytes": 8_000_000 * (1 + off)})
    return rows


def test_the_largest_batch_follows_from_the_line() -> None:
    conclusion = MEMORY.conclude(line_rows(0.0))
    assert "350 rows are the largest batch that fits" in conclusion.finding  # (0.8 · 10 MB - 1 MB) / 20 kB
    assert any("as predicted" in line for line in conclusion.evidence)
    untried = MEMORY.conclude(line_rows(0.0)[:-1])
    assert "350 rows are the largest batch that fits; no step has tried it" in untried.finding
    assert "no real step has checked" in untried.uncertainty


def test_a_batch_off_the_line_makes_the_largest_one_a_guess() -> None:
    conclusion = MEMORY.conclude(line_rows(0.5))
    assert any("+50% of the prediction" in line for line in conclusion.evidence)
    assert "guess" in conclusion.uncertainty


MLP = RunSpec(dataset="digits", hidden=(64,), batch_size=64, threads=1, device="cpu", epochs=1)
CNN = RunSpec(dataset="digits", model="cnn", batch_size=64, threads=1, device="cpu", epochs=1)


def measured(tmp_path: Path, budget_s: float, spec: RunSpec = MLP) -> tuple[list[Row], str]:
    context = ExperimentContext(memory.EXPERIMENT.fields(), spec, ("cpu",), budget_s, tmp_path, quick=True)
    rows = list(MEMORY.measure(context))
    return rows, MEMORY.conclude(rows, context.fields, spec, ("cpu",)).finding


def test_where_not_all_rows_fit_the_largest_batch_is_tried_by_a_real_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 30_000_000  # bytes: less than the 35 MB that a step with all 1,437 rows takes
    monkeypatch.setattr(inventory, "available_bytes", lambda *_, **__: free)
    rows, finding = measured(tmp_path, 60, CNN)
    (check,) = (row for row in rows if row["kind"] == "check")
    assert f"{int(check['batch'] or 0):,} rows are the largest batch that fits" in finding
    assert 718 < int(check["batch"] or 0) < 1437
    assert int(check["peak_bytes"] or 0) == pytest.approx(MEMORY_SHARE * free, rel=CLOSE)


def test_what_the_engine_refuses_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "available_bytes", lambda *_, **__: 900_000)
    rows, finding = measured(tmp_path, 60)
    refused = [row for row in rows if row["kind"] == "left_out"]
    assert refused
    assert all("free" in str(row["why"]) for row in refused)
    assert "no step has tried it" in finding


def test_the_line_is_checked_on_the_path_that_it_was_measured_on(tmp_path: Path) -> None:
    """A batch of all rows is not copied, so it is below any line through smaller batches."""
    rows, _ = measured(tmp_path, 60)
    (check,) = (row for row in rows if row["kind"] == "check")
    fitted = line(MEMORY.measurements(rows))
    assert fitted is not None
    fixed, row = fitted.coefficients
    assert int(check["peak_bytes"] or 0) == pytest.approx(fixed + int(check["batch"] or 0) * row, rel=CLOSE)


def test_without_time_the_line_is_reported_as_unchecked(tmp_path: Path) -> None:
    rows, finding = measured(tmp_path, 0.0)
    assert [row["kind"] for row in rows if row["kind"] == "check"] == []
    assert any("time" in str(row.get("why")) for row in rows)
    conclusion = MEMORY.conclude(rows)
    assert "no real step has checked" in conclusion.uncertainty
    assert finding == conclusion.finding


def test_the_peak_is_that_of_the_tensors_that_are_held_at_once() -> None:
    def work() -> object:
        first = torch.zeros(1000)
        second = torch.zeros(3000)
        del first
        third = torch.zeros(500)
        return second, third

    assert peak_bytes(torch.device("cpu"), work) == 4 * 4000


# --- real measurements -------------------------------------------------------------------------------------------

REAL: list[tuple[Experiment, RunSpec]] = [
    (accumulation.EXPERIMENT, SMALL),
    (
        checkpointing.EXPERIMENT,
        RunSpec(dataset="digits", hidden=(64,) * 8, batch_size=512, threads=1, device="cpu", epochs=1),
    ),
    (precision.EXPERIMENT, SMALL),
    (memory.EXPERIMENT, SMALL),
]


@pytest.mark.parametrize(("experiment", "spec"), REAL, ids=lambda value: getattr(value, "name", "") or "job")
def test_a_real_measurement_has_a_verdict_at_any_point(experiment: Experiment, spec: RunSpec, tmp_path: Path) -> None:
    budget_s = (
        60.0 if experiment.name == "memory" else 1.0
    )  # it ends by itself, and leaves out what time is too short for
    context = ExperimentContext(experiment.fields(), spec, ("cpu",), budget_s, tmp_path, quick=True)
    rows = list(StoredRows(experiment.name).measure(context))
    for length in range(len(rows) + 1):
        conclusion = StoredRows(experiment.name).conclude(rows[:length], context.fields, spec, ("cpu",))
        assert conclusion.finding.startswith("on cpu") == (length == len(rows)) or 0 < length < len(rows)
    kinds = {row["kind"] for row in rows}
    expected = {"memory": {"job", "peak", "check", "held"}, "precision": {"step", "memory", "accuracy", "left_out"}}
    assert kinds == expected.get(experiment.name, {"gradients", "memory", "step"})
    if experiment.name == "checkpointing":
        peaks = {row["way"]: row["bytes"] for row in rows if row["kind"] == "memory"}
        assert int(peaks["again"] or 0) < int(peaks["kept"] or 0)
        assert next(row["deviation"] for row in rows if row["kind"] == "gradients") == 0.0
