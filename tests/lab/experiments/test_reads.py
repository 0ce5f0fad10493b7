"""The experiment `reads`: planted costs are recovered, and the verdict follows from them."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.reads.measure import _reading
from epochtop.engine.lab.experiments.reads.schema import EVERY, Fields
from epochtop.engine.lab.experiments.reads.verdict import model
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import figure
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

READS = StoredRows("reads")


def planted(
    step: float, read: float, launch: float = 0.0, noise: float = 0.0, seed: int = 0, device: str = "cpu"
) -> list[Row]:
    """Rows of a machine with these seconds per step, read and launch."""
    chance = random.Random(seed)
    steps = 20_000
    rows: list[Row] = [{"kind": "operators", "device": device, "operators": 40}]
    for turn in range(9):
        for every in EVERY:
            many = steps // every if every else 0
            seconds = (steps * step + many * read) * (1 + noise * chance.uniform(-1, 1))
            labels: Row = {"kind": "run", "device": device, "loop": "plain", "every": every, "round": turn}
            rows.append({**labels, "steps": steps, "reads": many, "seconds": seconds})
        rows.append({"kind": "launch", "device": device, "round": turn, "seconds": launch})
    return rows


@settings(max_examples=50)
@given(step=st.floats(5e-6, 1e-2), share=st.floats(0.2, 5), seed=st.integers(0, 10**6))
def test_planted_costs_are_fitted_back_within_five_percent(step: float, share: float, seed: int) -> None:
    fitted = model(READS.measurements(planted(step, share * step, noise=0.01, seed=seed)))
    assert fitted is not None
    assert fitted.coefficients == pytest.approx((step, share * step), rel=0.05)


def test_the_interval_from_which_reads_do_not_matter_is_that_of_the_planted_costs() -> None:
    conclusion = READS.conclude(planted(1e-4, 5e-5, launch=2e-6), devices=("cpu",))
    assert "with at most one read per 50 steps" in conclusion.finding  # 5e-5 / 50 is 1 % of 1e-4
    assert "a read costs 50.0 µs and a step 100 µs" in conclusion.finding
    assert conclusion.setting == {"executor": "graph"}  # 40 launches of 2 µs are 80 % of a step


def test_where_launching_is_little_no_graph_is_proposed() -> None:
    conclusion = READS.conclude(planted(1e-2, 5e-3, launch=1e-6), devices=("cpu",))
    assert conclusion.setting == {}


def test_noise_larger_than_the_reads_is_no_difference() -> None:
    rows = planted(1e-4, 1e-7, noise=0.2, seed=3)
    conclusion = READS.conclude(rows, devices=("cpu",))
    assert "has no measurable cost" in conclusion.finding
    assert any("no difference between reading every loss and reading none" in line for line in conclusion.evidence)


def test_a_read_that_costs_nothing_is_too_short_to_measure_and_not_0_ns() -> None:
    conclusion = READS.conclude(planted(1e-4, 0.0, launch=1e-6, noise=0.1, seed=2), devices=("cpu",))
    result = " ".join((conclusion.finding, *conclusion.evidence))
    assert "reading the loss every step has no measurable cost" in conclusion.finding
    assert "a read is too short to measure" in result
    assert not re.search(r"\b0(\.0+)? ns", result)
    apart_s = max(
        figure(
            [
                float(row["seconds"] or 0)
                for row in planted(1e-4, 0.0, launch=1e-6, noise=0.1, seed=2)
                if row.get("every") == every
            ]
        ).spread
        for every in EVERY
    )
    assert f"steps vary by {format_quantity(apart_s / 20_000, 's')}" in conclusion.finding


def test_the_interval_is_named_for_every_device() -> None:
    rows = planted(1e-4, 1e-9, noise=0.1) + planted(1e-4, 5e-5, device="cuda:0")
    conclusion = READS.conclude(rows, devices=("cpu", "cuda:0"))
    assert "with at most one read per 50 steps" in conclusion.finding
    assert "cpu: reading the loss every step has no measurable cost" in conclusion.evidence
    both = READS.conclude(planted(1e-4, 5e-5) + planted(1e-4, 5e-5, device="cuda:0"), devices=("cpu", "cuda:0"))
    assert "cpu: with at most one read per 50 steps, reads take less than 1 %" in both.evidence


def test_threads_are_what_they_were_however_it_ends(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    measuring = READS.measure(
        ExperimentContext(Fields(), RunSpec(threads=before + 1, device="cpu"), ("cpu",), 1.0, tmp_path)
    )
    next(measuring)
    assert torch.get_num_threads() == before + 1
    measuring.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == before


def test_each_device_has_a_line_and_the_last_one_the_finding() -> None:
    rows = planted(1e-4, 1e-8) + planted(3e-4, 2e-5, launch=6e-6, device="cuda:0")
    conclusion = READS.conclude(rows, devices=("cpu", "cuda:0"))
    assert conclusion.finding.startswith("on cuda:0 a read costs 20.0 µs and a step 300 µs")
    assert [line.name for line in conclusion.lines] == ["cpu, fitted", "cuda:0, fitted"]


def test_any_beginning_of_the_rows_has_a_verdict() -> None:
    rows = planted(1e-4, 1e-5)
    for length in range(0, len(rows) + 1, 3):
        assert READS.conclude(rows[:length], devices=("cpu",)).finding


def test_a_real_measurement_reads_as_often_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    count = 0
    original = torch.Tensor.item

    def counted(self: torch.Tensor) -> float:
        nonlocal count
        count += 1
        return original(self)

    monkeypatch.setattr(torch.Tensor, "item", counted)
    stepped = _reading(lambda: torch.zeros(()), 10)
    for _ in range(95):
        stepped()
    assert count == 9
    context = ExperimentContext(Fields(steps=1000), RunSpec(threads=1, device="cpu"), ("cpu",), 1.0, tmp_path)
    rows = list(READS.measure(context))
    runs = [row for row in rows if row["kind"] == "run"]
    assert {row["loop"] for row in runs} == {"plain", "epochtop"}
    assert {row["reads"] for row in runs if row["every"] == 10} == {100}
    operators = next(row["operators"] for row in rows if row["kind"] == "operators")
    assert 30 <= int(operators or 0) <= 60  # two layers, a loss and their gradients, four parameters updated
    assert READS.conclude(rows, context.fields, context.spec, ("cpu",)).evidence
