"""Precisions are trained for the same steps, in their own arithmetic, and within the time budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from epochtop.engine.device.tf32 import tf32
from epochtop.engine.lab.experiment import ExperimentContext, NoFields
from epochtop.engine.lab.experiments.precision import measure as precision_measure
from epochtop.engine.lab.experiments.precision import training
from epochtop.engine.lab.experiments.precision.schema import VARIANTS, Fields
from epochtop.engine.lab.experiments.precision.training import Training, train
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.tf32 import with_tf32
from epochtop.engine.lab.measurements import Row, stored
from epochtop.engine.lab.statistics import select
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

PRECISION = StoredRows("precision")

SMALL = RunSpec(dataset="digits", hidden=(16, 16), batch_size=64, threads=1, device="cpu", epochs=1)
STEPS_PER_EPOCH = 23
"""Of 1,437 training rows in batches of 64."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def context(folder: Path, spec: RunSpec = SMALL, budget_s: float = 60.0, **fields: Any) -> ExperimentContext:
    return ExperimentContext(Fields(**fields), spec, ("cpu",), budget_s, folder, quick=True)


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


# --- tf32 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [(False, False), (True, True), (False, True)])
@pytest.mark.parametrize("allowed", [False, True])
def test_the_switch_of_tf32_is_set_while_it_is_measured_and_put_back(before: tuple[bool, bool], allowed: bool) -> None:
    outside = switches()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    try:
        seen: list[tuple[bool, bool]] = []

        def run(times: int) -> float:
            seen.append(switches())
            return 1 / (times - 1)

        assert with_tf32(allowed, run)(2) == 1.0
        with pytest.raises(ZeroDivisionError):
            with_tf32(allowed, run)(1)
        assert seen == [(allowed, allowed)] * 2
        assert switches() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = outside


def test_each_precision_takes_its_steps_in_the_arithmetic_that_it_is_named_for(tmp_path: Path) -> None:
    """All jobs are built before the first step, and the last of them has set the switch for its own arithmetic."""
    seen: dict[str, set[tuple[bool, bool]]] = {}

    def job(name: str) -> Any:
        return SimpleNamespace(
            spec=RunSpec(precision=name),  # type: ignore[arg-type]
            step=lambda: seen.setdefault(name, set()).add(switches()),
        )

    built = variants.Variants("cpu", {name: job(name) for name in VARIANTS}, None)
    rows = list(map(stored, variants.steps(context(tmp_path), built, VARIANTS, 0.1)))
    assert {row["way"] for row in rows} == set(VARIANTS)
    assert seen == {name: {(name == "tf32",) * 2} for name in VARIANTS}


def test_a_precision_is_trained_and_judged_in_its_own_arithmetic() -> None:
    seen: list[tuple[bool, bool]] = []
    trained = Training(job_of(SMALL))
    trained.job = replace(
        trained.job,
        spec=RunSpec(precision="tf32"),
        step=lambda: (seen.append(switches()), torch.zeros(()))[1],
    )
    evaluate = trained.job.evaluator.evaluate
    object.__setattr__(trained.job.evaluator, "evaluate", lambda *rest: (seen.append(switches()), evaluate(*rest))[1])
    with tf32(False):
        trained.run(2)
        trained.evaluate()
    assert seen == [(True, True)] * 3


# --- equally far -------------------------------------------------------------------------------------------------


def test_all_are_trained_for_the_same_number_of_steps_and_no_more_than_asked(tmp_path: Path) -> None:
    counts = [0, 0, 0]

    def counting(place: int) -> Training:
        made = Training(job_of(SMALL))

        def step() -> torch.Tensor:
            counts[place] += 1
            return torch.zeros(())

        made.job = replace(made.job, step=step)
        return made

    all_of_them = [counting(place) for place in range(3)]
    assert train(context(tmp_path), all_of_them, 1000, 0.0) == 1000
    assert counts == [1000] * 3
    assert train(context(tmp_path), all_of_them, 1000, 60.0) == 1
    assert counts == [1001] * 3


def test_training_in_turns_is_the_training_of_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dropout draws for one is not taken from another."""
    monkeypatch.setattr(training, "SLICE_S", 0.0)  # a step a turn
    spec = RunSpec(dataset="digits", hidden=(16,), dropout=0.5, batch_size=64, threads=1, device="cpu")
    alone = job_of(spec)
    for _ in range(5):
        alone.step()
    together = [Training(job_of(spec)), Training(job_of(spec))]
    assert train(context(tmp_path), together, 5, 0.0) == 5
    for each in together:
        for weight, other in zip(each.job.model.parameters(), alone.model.parameters(), strict=True):
            assert torch.equal(weight, other)


def accuracies(asked: ExperimentContext) -> list[Row]:
    return [stored(row) for row in precision_measure._train(asked, "cpu", ("fp32", "bf16"), None, 0.0)]


def test_with_time_all_seeds_are_trained_as_long_as_was_asked(tmp_path: Path) -> None:
    rows = accuracies(context(tmp_path, trained=2))
    assert [(row["way"], row["round"]) for row in rows] == [
        (way, seed) for seed in range(3) for way in ("fp32", "bf16")
    ]
    assert {(row["steps"], row["epochs"]) for row in rows} == {(2 * STEPS_PER_EPOCH, 2.0)}


def test_without_time_not_even_an_epoch_is_trained_and_the_verdict_says_so(tmp_path: Path) -> None:
    short = context(tmp_path, budget_s=0.0)
    rows = accuracies(short)
    assert [(row["way"], row["round"], row["steps"]) for row in rows] == [("fp32", 0, 1), ("bf16", 0, 1)]
    assert {row["epochs"] for row in rows} == {1 / STEPS_PER_EPOCH}


def test_a_budget_that_is_used_up_before_training_ends_it_after_a_step(tmp_path: Path) -> None:
    rows = list(PRECISION.measure(context(tmp_path, budget_s=0.01, trained=10_000)))
    assert {row["steps"] for row in select(rows, kind="accuracy")} == {1}


def test_what_would_take_too_long_to_evaluate_is_left_out_and_reported(tmp_path: Path) -> None:
    slow, fast = Training(job_of(SMALL)), Training(job_of(SMALL))
    fast.seconds, slow.seconds = 1.0, 1e9
    asked = context(tmp_path)
    rows = list(precision_measure._evaluate(asked, {"fp32": fast, "bf16": slow}, "cpu", 0, 1, 1.0))
    assert [row.way for row in rows] == ["fp32"]
    assert asked.cannot_see == ["the accuracy of bf16 on cpu: there was no time to evaluate 360 rows with it"]


def test_a_budget_that_is_used_up_is_extended_by_what_is_needed(tmp_path: Path) -> None:
    late = ExperimentContext(NoFields(), SMALL, ("cpu",), 1.0, tmp_path)
    late.start -= 100.0
    assert late.left_s() == 0.0
    longer = late.with_time(5.0)
    assert 4.5 < longer.left_s() <= 5.0
    assert (longer.stop, longer.cannot_see) == (late.stop, late.cannot_see)
    early = ExperimentContext(NoFields(), SMALL, ("cpu",), 60.0, tmp_path)
    assert early.with_time(5.0).budget_s == 60.0
