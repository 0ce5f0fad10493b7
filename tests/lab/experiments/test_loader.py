"""The experiment `loader`: every source feeds the same rows, workers end, and the verdict follows from planted rows."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, Stopped
from epochtop.engine.lab.experiments.loader import measure as loader_measure
from epochtop.engine.lab.experiments.loader import sources
from epochtop.engine.lab.experiments.loader.schema import Fields
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.lab.stored_rows import StoredRows

LOADER = StoredRows("loader")

JOB = RunSpec(dataset="digits", hidden=(8,), batch_size=64, threads=1, device="cpu")
TASK = """
import os
import torch
from torch import nn
from epochtop import Task

class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, number):
        return torch.full((2,), float(number)), os.getpid()

def make_task():
    return Task(model=nn.Linear(2, 3), train=Squares(), loss=lambda output, labels: output.mean())
"""
NOISE = (0.5, 0.7, 0.8, 1.0, 1.0, 1.0, 1.3, 1.5, 1.9)
"""Its median is 1, and its quartiles are 0.5 apart."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Every test ends the processes that it starts; those of earlier tests are not its own."""
    threads, processes = torch.get_num_threads(), multiprocessing.active_children()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert set(multiprocessing.active_children()) <= set(processes)


def context(folder: Path, spec: RunSpec = JOB, budget_s: float = 1.0, most_workers: int = 1) -> ExperimentContext:
    fields = Fields(most_workers=most_workers)
    return ExperimentContext(fields=fields, spec=spec, devices=("cpu",), budget_s=budget_s, folder=folder)


@pytest.fixture
def task(tmp_path: Path) -> RunSpec:
    (tmp_path / "squares.py").write_text(TASK)
    return RunSpec(task=f"{tmp_path / 'squares.py'}:make_task", batch_size=10, threads=1, device="cpu", workers=1)


# --- measuring -----------------------------------------------------------------------------------------------


def test_every_way_feeds_a_step_and_is_timed_alone(tmp_path: Path) -> None:
    rows = list(LOADER.measure(context(tmp_path)))
    ways = {"resident", "streamed", "0 workers", "1 worker"}
    assert {row["way"] for row in rows if row["kind"] == "step"} == ways | {"one batch"}
    assert {row["way"] for row in rows if row["kind"] == "batch"} == ways
    assert {row["way"] for row in rows if row["kind"] == "start"} == {"1 worker"}
    (job,) = (row for row in rows if row["kind"] == "job")
    assert (job["way"], job["batches"], job["sets"]) == ("resident", -(-1437 // 64), "placement")  # of 1,797 digits
    assert all(row["seconds"] > 0 for row in rows if row["kind"] != "job")  # type: ignore[operator]
    assert all(row["wait_s"] > 0 for row in rows if row["kind"] == "step")  # type: ignore[operator]
    assert torch.get_num_threads() == 1
    conclusion = LOADER.conclude(rows, Fields(), JOB)
    assert "resident" in conclusion.finding


def test_a_task_with_a_dataset_is_fed_by_loaders_only(tmp_path: Path, task: RunSpec) -> None:
    rows = list(LOADER.measure(context(tmp_path, task, most_workers=0)))
    assert {row["way"] for row in rows if row["kind"] == "step"} == {"one batch", "0 workers", "1 worker"}
    (job,) = (row for row in rows if row["kind"] == "job")
    assert (job["way"], job["batches"], job["sets"]) == ("1 worker", 4, "workers")


def test_workers_are_ended_also_by_a_stop(tmp_path: Path) -> None:
    asked = context(tmp_path, budget_s=20.0)
    measuring = LOADER.measure(asked)
    row = next(row for row in measuring if row["kind"] == "start")
    asked.stop.set()
    with pytest.raises(Stopped):
        list(measuring)
    assert row["way"] == "1 worker"


def test_batches_of_a_loader_come_from_its_workers_and_hold_every_row_once_a_pass(task: RunSpec) -> None:
    import os

    before = set(multiprocessing.active_children())
    feed = sources.loader(job_of(task, "cpu"), 1, pinned=False)
    with feed.open() as batch:
        taken = [batch() for _ in range(8)]
        (worker,) = set(multiprocessing.active_children()) - before
    assert {pid for _, y in taken for pid in y.tolist()} == {worker.pid} != {os.getpid()}
    for epoch in (taken[:4], taken[4:]):
        assert sorted(number for x, _ in epoch for number in x[:, 0].tolist()) == list(range(40))
    assert not worker.is_alive()


def test_a_job_that_takes_all_rows_at_once_loads_nothing(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="all 120 rows are one batch"):
        list(LOADER.measure(context(tmp_path, RunSpec(device="cpu"))))


# --- concluding ----------------------------------------------------------------------------------------------


def planted(
    seconds: dict[str, float], now: str, sets: str, noise: dict[str, tuple[float, ...]], start_s: float = 0.0
) -> list[Row]:
    rows: list[Row] = [{"kind": "job", "device": "cpu", "way": now, "batches": 10, "sets": sets}]
    for turn in range(len(NOISE)):
        for way, took in seconds.items():
            labels: Row = {"device": "cpu", "way": way, "round": turn}
            if "worker" in way:
                labels |= {"workers": int(way.split()[0]), "pinned": 0}
            times = noise.get(way, (1.0,) * len(NOISE))
            rows.append({**labels, "kind": "step", "seconds": took * times[turn]})
            if labels.get("workers"):
                rows.append({**labels, "kind": "start", "seconds": start_s})
    return rows


def concluded(rows: list[Row]) -> Verdict:
    return LOADER.conclude(rows)


@given(times=st.floats(1.2, 50), order=st.permutations([0.98, 0.99, 0.99, 1.0, 1.0, 1.0, 1.01, 1.01, 1.02]))
def test_a_slower_placement_is_found_with_the_setting_that_changes_it(times: float, order: list[float]) -> None:
    seconds = {"one batch": 0.9, "resident": 1.0, "streamed": times, "0 workers": 1.1 * times}
    conclusion = concluded(planted(seconds, "streamed", "placement", {"streamed": tuple(order)}))
    assert conclusion.setting == {"placement": "device"}
    assert "resident rows feeds a step fastest" in conclusion.finding
    assert f"takes {times:.3g} × (" in conclusion.finding


@given(effect=st.floats(1.0, 1.2), order=st.permutations(NOISE))
def test_noise_that_is_larger_than_the_effect_is_not_a_difference(effect: float, order: list[float]) -> None:
    seconds = {"one batch": 1.0, "resident": 1.0, "streamed": effect, "2 workers": effect}
    noise = dict.fromkeys(("streamed", "2 workers"), tuple(order))
    conclusion = concluded(planted(seconds, "streamed", "placement", noise))
    assert conclusion.setting == {}
    assert "no source is faster than the one in use, streamed rows" in conclusion.finding
    assert "how much of that is waiting" in conclusion.finding or "are waiting for rows" in conclusion.finding
    assert sum(line.startswith("cpu: no difference") for line in conclusion.evidence) == 3


@given(order=st.permutations([0.98, 0.99, 0.99, 1.0, 1.0, 1.0, 1.01, 1.01, 1.02]))
def test_the_wait_for_rows_is_stated_with_an_interval_that_has_it(order: list[float]) -> None:
    seconds = {"one batch": 1e-3, "resident": 1.2e-3, "streamed": 1.3e-3}
    conclusion = concluded(planted(seconds, "resident", "placement", {"resident": tuple(order)}))
    assert "per step, of which 200 µs (" in conclusion.finding
    (wait,) = conclusion.estimates
    assert wait.low <= 200e-6 <= wait.high
    assert wait.low > 0


def test_a_timed_wait_is_stated_without_the_clock_and_what_the_step_loses_after_it() -> None:
    seconds = {"one batch": 168e-6, "resident": 381e-6, "streamed": 400e-6}
    waits = {"one batch": 0.5e-6, "resident": 200.5e-6, "streamed": 210e-6}
    rows: list[Row] = [
        {**row, "wait_s": waits[str(row["way"])]} if row["kind"] == "step" else row
        for row in planted(seconds, "resident", "placement", {})
    ]
    conclusion = concluded(rows)
    assert "381 µs per step, of which 200 µs (" in conclusion.finding
    (wait,) = conclusion.estimates
    assert wait.value == pytest.approx(200e-6)
    assert wait.low == pytest.approx(199.5e-6)  # the clock's own time is known no better than the whole of it
    assert wait.high == pytest.approx(200.5e-6)


def test_waits_are_a_median_without_interruptions_or_the_mean_of_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    durations = iter([1.0, 200e-6, 200e-6, 5e-3, 200e-6, 200e-6])
    monkeypatch.setattr(loader_measure, "perf_counter", lambda: clock[0])

    def next_batch() -> tuple[int, int]:
        clock[0] += next(durations)
        return 1, 2

    waits = loader_measure.Waits()
    assert waits.of_a_step(bursts=False) is None
    batch = waits.clocked(next_batch)
    assert batch() == (1, 2)
    waits.clear()
    for _ in range(5):
        batch()
    assert waits.of_a_step(bursts=False) == pytest.approx(200e-6)
    assert waits.of_a_step(bursts=True) == pytest.approx((4 * 200e-6 + 5e-3) / 5)


def test_a_wait_longer_than_the_step_is_not_stated() -> None:
    noise = {"resident": (0.1, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0, 8.0, 9.0)}
    conclusion = concluded(
        planted({"one batch": 0.1, "resident": 1.0, "streamed": 1.0}, "resident", "placement", noise)
    )
    assert "how much of that is waiting for rows cannot be determined from 9 rounds" in conclusion.finding


@pytest.mark.parametrize(("start_s", "setting"), [(0.5, {"workers": "2"}), (30.0, {})])
def test_workers_of_a_dataset_count_with_their_start_once_an_epoch(start_s: float, setting: dict[str, str]) -> None:
    seconds = {"one batch": 0.5, "0 workers": 2.0, "1 worker": 1.2, "2 workers": 0.6}
    conclusion = concluded(planted(seconds, "0 workers", "workers", {}, start_s))
    assert conclusion.setting == setting  # 0.6 + 0.5 / 10 s < 2 s a step, 0.6 + 30 / 10 s are more
    assert ("a DataLoader with 2 workers feeds a step fastest: 650 ms" in conclusion.finding) == bool(setting)


def test_a_faster_dataloader_is_not_a_setting_where_the_engine_has_its_own_way() -> None:
    conclusion = concluded(planted({"resident": 1.0, "streamed": 1.1, "0 workers": 0.5}, "resident", "placement", {}))
    assert "a DataLoader with 0 workers feeds a step fastest" in conclusion.finding
    assert conclusion.setting == {}


def test_any_rows_and_none_lead_to_a_verdict() -> None:
    assert concluded([]).finding == "not enough was measured for an answer"
    rows = planted({"one batch": 1.0, "resident": 1.0, "2 workers": 3.0}, "resident", "placement", {}, 0.1)
    for many in itertools.count(1):
        assert concluded(rows[:many]).finding
        if many > len(rows):
            break
