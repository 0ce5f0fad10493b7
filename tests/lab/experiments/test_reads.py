"""The experiment `reads`: planted costs are recovered, the interval supports the verdict, and waiting is not a call."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.reads import blocks
from epochtop.engine.lab.experiments.reads.blocks import Alternation, TimedReads
from epochtop.engine.lab.experiments.reads.schema import Fields
from epochtop.engine.lab.experiments.reads.verdict import read_cost
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

READS = StoredRows("reads")
STEPS, CLOCK_S = 20_000, 0.2e-6


def planted(
    step: float,
    read: float,
    launch: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
    call: float | None = None,
    wait: float | None = None,
    rounds: int = 40,
) -> list[Row]:
    """Rows of a machine with these seconds per step, read and launch.

    Steps have this noise, launches a tenth of it. Calls are longer by up to a tenth of it: a neighbor makes no call shorter.
    """
    chance = random.Random(seed)

    def noisy(seconds: float, part: float = 1.0) -> float:
        return seconds * (1 + part * noise * chance.uniform(-1, 1))

    rows: list[Row] = [{"kind": "operators", "device": device, "operators": 40}]
    for turn in range(rounds):
        labels: Row = {"device": device, "round": turn}
        for every in (0, 1):
            run: Row = {"kind": "run", "loop": "plain", "every": every, "steps": STEPS, "reads": STEPS * every}
            rows.append({**run, **labels, "seconds": STEPS * (noisy(step) + every * read)})
        if call is not None:
            parts = {"call": call + abs(noisy(call, 0.1) - call), "alone": noisy(call, 0.1), "clock": CLOCK_S}
            rows += [{"kind": "read", "part": part, **labels, "seconds": took} for part, took in parts.items()]
        if wait is not None:
            rows.append({"kind": "read", "part": "wait", **labels, "seconds": noisy(wait, 0.1)})
        rows.append({"kind": "launch", **labels, "seconds": noisy(launch, 0.1)})
    return rows


def result_of(conclusion: Verdict) -> str:
    return " ".join((conclusion.finding, *conclusion.evidence, conclusion.uncertainty))


# --- costs -------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(step=st.floats(5e-5, 1e-2), read=st.floats(1e-7, 2e-5), noise=st.floats(0, 0.3), seed=st.integers(0, 10**6))
def test_the_interval_has_the_planted_cost_and_is_a_microsecond_wide(
    step: float, read: float, noise: float, seed: int
) -> None:
    cost = read_cost(READS.measurements(planted(step, read, noise=noise, seed=seed, call=read)))
    assert cost is not None
    assert cost.low <= read <= cost.high
    if read <= 5e-6:
        assert cost.high - cost.low <= 1e-6, "30 % of noise in a step of 10 ms are 3 ms"


def test_a_cost_that_steps_contradict_has_an_interval_with_both() -> None:
    cost = read_cost(READS.measurements(planted(1e-4, 2e-5, noise=0.01, call=1e-6)))
    assert cost is not None
    assert cost.low <= 1e-6
    assert 1.9e-5 <= cost.high <= 2.1e-5


def test_the_reading_interval_that_does_not_matter_follows_from_the_costs() -> None:
    conclusion = READS.conclude(planted(1e-4, 5e-5, launch=2e-6), devices=("cpu",))
    assert (
        "adds 50.0 % (50.0 % … 50.0 %) to a step of 100 µs; with one read per 50 steps it is 1 % or less"
        in conclusion.finding
    )  # 5e-5 / 50 / 1e-4
    assert "a read costs 50.0 µs (50.0 µs … 50.0 µs)" in conclusion.finding
    assert conclusion.setting == {"executor": "graph"}  # 40 launches of 2 µs are 80 % of a step


def test_a_short_read_is_negligible_in_every_step() -> None:
    conclusion = READS.conclude(planted(2e-4, 6e-7, noise=0.1, call=6e-7), devices=("cpu",))
    assert conclusion.estimates[0].value == pytest.approx(6e-7, rel=0.01)
    assert "and adds 0.3" in conclusion.finding
    assert "with one read per" not in conclusion.finding, "0.3 % in every step"
    assert any("so steps alone cannot show what a read costs" in line for line in conclusion.evidence)


def test_an_interval_that_has_zero_states_its_end_only() -> None:
    conclusion = READS.conclude(planted(1e-4, 1e-8, noise=0.2, seed=3), devices=("cpu",))
    cost = conclusion.estimates[0]
    assert cost.low < 0 < cost.high
    assert "a read costs less than" in conclusion.finding
    assert "a read costs 1" not in conclusion.finding


def test_few_rounds_state_no_cost() -> None:
    conclusion = READS.conclude(planted(1e-4, 5e-5, rounds=2), devices=("cpu",))
    assert "too few rounds to tell what a read adds" in conclusion.finding


def test_every_device_has_its_cost_and_the_last_one_the_finding() -> None:
    rows = planted(1e-4, 1e-9, noise=0.1, call=1e-9) + planted(3e-4, 5e-5, launch=3e-6, device="cuda:0")
    conclusion = READS.conclude(rows, devices=("cpu", "cuda:0"))
    assert conclusion.finding.startswith("on cuda:0 a read costs 50.0 µs")
    assert any(line.startswith("cpu: a read costs ") for line in conclusion.evidence)
    assert [line.name for line in conclusion.lines] == ["cpu, fitted", "cuda:0, fitted"]


def test_where_the_host_waits_the_cost_is_that_of_the_step_and_the_wait_is_a_figure_of_its_own() -> None:
    rows = planted(1e-3, 4e-5, launch=1e-6, call=1e-5, wait=9e-4, device="cuda:0")
    conclusion = READS.conclude(rows, devices=("cuda:0",))
    assert "a read costs 40.0 µs" in conclusion.finding
    assert any("waits 900 µs" in line and "the call takes 10.0 µs" in line for line in conclusion.evidence)


# --- launches ----------------------------------------------------------------------------------------------------


def test_where_launching_is_little_no_graph_is_proposed() -> None:
    assert READS.conclude(planted(1e-2, 5e-3, launch=1e-6), devices=("cpu",)).setting == {}


def test_a_load_in_most_blocks_changes_neither_the_launches_nor_the_cost_of_a_read() -> None:
    """40 launches of 10 µs in 1 ms are 40 %. In 3 blocks of 4 a neighbor makes steps and calls three times as long."""
    rows = planted(1e-3, 1e-6, launch=1e-5, call=1e-6)
    for row in rows:
        if int(row.get("round") or 0) >= 10 and (row["kind"] == "run" or row.get("part") == "call"):
            row["seconds"] = 3 * float(row["seconds"] or 0)
    read, launches = READS.conclude(rows, devices=("cpu",)).estimates
    assert read.value == pytest.approx(1e-6)
    assert (launches.value, launches.high) == pytest.approx((40.0, 40.0))


@settings(max_examples=40)
@given(step=st.floats(1e-6, 1e-2), launch=st.floats(1e-7, 1e-2), noise=st.floats(0, 0.5), seed=st.integers(0, 10**6))
def test_launches_are_a_part_of_the_step_or_unknown(step: float, launch: float, noise: float, seed: int) -> None:
    conclusion = READS.conclude(planted(step, 1e-6, launch=launch, noise=noise, seed=seed), devices=("cpu",))
    parts = [one for one in conclusion.estimates if one.name == "launches"]
    assert all(0 <= part.low <= part.value <= part.high <= 100 for part in parts)
    if 40 * launch > 4 * step:
        assert parts == []
        assert "their part of a step is unknown" in result_of(conclusion)
        assert conclusion.setting == {}


# --- rows --------------------------------------------------------------------------------------------------------


def test_any_beginning_of_the_rows_has_a_verdict() -> None:
    rows = planted(1e-4, 1e-5, call=1e-5, rounds=9)
    for length in range(0, len(rows) + 1, 3):
        assert READS.conclude(rows[:length], devices=("cpu",)).finding


def test_rows_of_earlier_versions_have_a_verdict() -> None:
    rows = planted(1e-4, 5e-5, rounds=5)
    rows += [{**row, "every": 10, "reads": STEPS // 10} for row in rows if row["kind"] == "run" and row["every"]]
    assert "a read costs 50.0 µs" in READS.conclude(rows, devices=("cpu",)).finding


# --- blocks, by a planted clock ----------------------------------------------------------------------------------


class Machine:
    """A clock, and a device that works behind the host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: float, behind_s: float, call_s: float) -> None:
        self.now, self._done = 0.0, 0.0
        self._step_s, self._behind_s, self._call_s = step_s, behind_s, call_s
        monkeypatch.setattr(blocks, "perf_counter", lambda: self.now)

    def step(self) -> Machine:
        """Enqueue a step; the device takes `behind_s` for it."""
        self.now += self._step_s
        self._done = max(self._done, self.now) + self._behind_s
        return self

    def wait(self) -> None:
        self.now = max(self.now, self._done)

    def item(self) -> float:
        self.wait()
        self.now += self._call_s
        return 0.0


def test_waiting_for_the_device_is_separated_from_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Machine(monkeypatch, step_s=1e-4, behind_s=9e-4, call_s=1e-5)
    reads = TimedReads(gpu.wait)
    Alternation({"apart": reads.apart(gpu.step)}, gpu.wait, steps=20).block(0.05)
    parts = reads.medians()
    assert parts["wait"][0] == pytest.approx(9e-4)
    assert parts["call"][0] == pytest.approx(1e-5)


def test_a_read_costs_a_device_the_time_in_which_its_queue_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Machine(monkeypatch, step_s=1e-4, behind_s=9e-4, call_s=1e-5)
    reads = TimedReads(gpu.wait)
    kinds = {
        "none": reads.after(gpu.step, "clock", blocks.nothing),
        "read": reads.after(gpu.step, "read", blocks.item),
    }
    times = Alternation(kinds, gpu.wait, steps=100).block(1.0)
    assert times["none"][0] == pytest.approx(9e-4, rel=0.01), "the host is ahead"
    assert times["read"][0] == pytest.approx(9e-4 + 1e-4 + 1e-5, rel=0.01), "enqueueing and the call are not hidden"


def test_steps_that_a_neighbor_interrupts_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Machine(monkeypatch, step_s=1e-4, behind_s=0.0, call_s=5e-6)
    chance = random.Random(1)

    def step() -> Machine:
        cpu.now += 0.01 if chance.random() < 0.2 else 0.0
        return cpu.step()

    reads = TimedReads()
    kinds = {"none": reads.after(step, "clock", blocks.nothing), "read": reads.after(step, "call", blocks.item)}
    times = Alternation(kinds, cpu.wait, steps=1).block(1.0)
    assert times["read"][0] - times["none"][0] == pytest.approx(5e-6)
    assert reads.medians()["call"][0] == pytest.approx(5e-6)


# --- real measurements -------------------------------------------------------------------------------------------


def test_threads_are_what_they_were_however_it_ends(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    measuring = READS.measure(
        ExperimentContext(Fields(), RunSpec(threads=before + 1, device="cpu"), ("cpu",), 1.0, tmp_path)
    )
    next(measuring)
    assert torch.get_num_threads() == before + 1
    measuring.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == before


def test_a_planted_read_of_a_millisecond_is_in_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    original = torch.Tensor.item

    def slow(self: torch.Tensor) -> float:
        end = blocks.perf_counter() + 1e-3
        value = original(self)
        while blocks.perf_counter() < end:
            pass
        return value

    monkeypatch.setattr(torch.Tensor, "item", slow)
    context = ExperimentContext(Fields(steps=1000), RunSpec(threads=1, device="cpu"), ("cpu",), 1.5, tmp_path)
    rows = list(READS.measure(context))
    runs = [row for row in rows if row["kind"] == "run"]
    assert {(row["loop"], row["every"], row["reads"]) for row in runs} == {
        ("plain", 0, 0),
        ("plain", 1, 1000),
        ("epochtop", 0, 0),
    }
    operators = next(row["operators"] for row in rows if row["kind"] == "operators")
    assert 30 <= int(operators or 0) <= 60  # two layers, a loss and their gradients, four parameters updated
    seconds = {part: [row["seconds"] for row in rows if row.get("part") == part] for part in ("call", "alone", "clock")}
    for call, alone, clock in zip(seconds["call"], seconds["alone"], seconds["clock"], strict=True):
        assert float(call or 0) + float(clock or 0) >= 1e-3
        assert float(alone or 0) >= 1e-3
    assert READS.conclude(rows, context.fields, context.spec, ("cpu",)).evidence
