"""The experiment `parallel`: ranks run the steps of one process and end with it; planted speed-ups are recovered."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.distributed.orders import RankError
from epochtop.engine.job.workload import load_workload
from epochtop.engine.lab.experiment import ExperimentContext, Stopped
from epochtop.engine.lab.experiments.parallel.ranks import rank_group
from epochtop.engine.lab.experiments.parallel.schema import Fields, StepTime, speed_ups
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.measurements import Row, of_kind
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

PARALLEL = StoredRows("parallel")

JOB = RunSpec(dataset="sums", hidden=(8,), batch_size=512, threads=1, device="cpu")
NOISE = (0.5, 0.7, 0.8, 1.0, 1.0, 1.0, 1.3, 1.5, 1.9)
"""Its median is 1, and its quartiles are 0.5 apart."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads, interface = torch.get_num_threads(), os.environ.get("GLOO_SOCKET_IFNAME")
    processes = multiprocessing.active_children()
    yield
    assert torch.get_num_threads() == threads
    assert os.environ.get("GLOO_SOCKET_IFNAME") == interface
    assert not torch.distributed.is_initialized()
    assert set(multiprocessing.active_children()) <= set(processes)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def context(folder: Path, quick: bool = True) -> ExperimentContext:
    fields = Fields(most_processes=2)
    return ExperimentContext(fields=fields, spec=JOB, devices=("cpu",), budget_s=2.0, folder=folder, quick=quick)


# --- measuring -----------------------------------------------------------------------------------------------


def test_one_process_two_and_two_threads_take_a_step_of_the_same_rows(tmp_path: Path) -> None:
    asked = context(tmp_path, quick=False)
    rows = list(PARALLEL.measure(asked))
    steps = [row for row in rows if row["kind"] == "step"]
    ways = {("processes", 1), ("processes", 2), ("threads", 2)}
    assert {(row["way"], row["parts"]) for row in steps} == ways
    assert {row["rows"] for row in steps} == {512}
    speeds = [row for row in rows if row["kind"] == "speed_up"]
    assert {(row["way"], row["parts"]) for row in speeds} == ways - {("processes", 1)}
    assert all(row["efficiency"] == 50 * row["speed_up"] for row in speeds)  # type: ignore[operator]
    assert any("DataParallel" in line for line in asked.cannot_see)
    assert PARALLEL.conclude(rows, spec=JOB).evidence


def test_a_stop_ends_the_other_processes_and_keeps_the_rows(tmp_path: Path) -> None:
    asked = context(tmp_path)
    measuring = PARALLEL.measure(asked)
    first = next(measuring)
    assert multiprocessing.active_children()
    asked.stop.set()
    with pytest.raises(Stopped):
        list(measuring)
    assert first["kind"] == "step"


@pytest.mark.usefixtures("_one_thread")
def test_two_ranks_take_the_steps_of_one_process_with_all_rows() -> None:
    workload = load_workload(JOB)
    alone = job_of(JOB, "cpu", workload)
    shared = msgspec.structs.replace(JOB, processes=2, batch_size=256)
    with rank_group(shared, workload) as ranks:
        assert ranks.run(5) > 0
        weights = {name: weight.clone() for name, weight in ranks.job.model.state_dict().items()}
    for _ in range(5):
        alone.step()
    torch.testing.assert_close(weights, dict(alone.model.state_dict()), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("_one_thread")
def test_a_killed_rank_is_named() -> None:
    with pytest.raises(RankError, match="rank 1 was killed by SIGKILL"):
        _train_with_a_killed_rank()


def _train_with_a_killed_rank() -> None:
    shared = msgspec.structs.replace(JOB, processes=2, batch_size=256)
    with rank_group(shared, load_workload(JOB)) as ranks:
        ranks.run(1)
        for process in multiprocessing.active_children():
            process.kill()
        ranks.run(1000)


# --- concluding ----------------------------------------------------------------------------------------------


def planted(seconds: dict[tuple[str, int], float], noise: tuple[float, ...] = (1.0,) * 9) -> list[Row]:
    """Rows in which one process takes 1 s, and the others what is planted, with `noise`."""
    every = {("processes", 1): 1.0} | seconds
    return [
        {
            "kind": "step",
            "device": "cpu",
            "way": way,
            "parts": parts,
            "rows": 256,
            "round": turn,
            "seconds": took * (noise[turn] if parts > 1 else 1.0),
        }
        for turn in range(len(noise))
        for (way, parts), took in every.items()
    ]


def concluded(rows: list[Row], batch_size: int = 256) -> Verdict:
    return PARALLEL.conclude(rows, spec=RunSpec(batch_size=batch_size))


@given(speed_up=st.floats(1.2, 3.9), order=st.permutations([0.98, 0.99, 0.99, 1.0, 1.0, 1.0, 1.01, 1.01, 1.02]))
def test_a_planted_speed_up_and_its_efficiency_are_reported(speed_up: float, order: list[float]) -> None:
    conclusion = concluded(planted({("processes", 2): 0.95, ("processes", 4): 1 / speed_up}, tuple(order)))
    assert f"4 processes are faster than one process: {speed_up:.3g} × (" in conclusion.finding
    efficiency = re.search(r"efficiency of (\d+)%", conclusion.finding)
    assert efficiency is not None
    assert float(efficiency[1]) == pytest.approx(25 * speed_up, abs=0.51)
    assert conclusion.setting == {"processes": "4", "threads": "1", "batch_size": "64"}


@given(effect=st.floats(0.85, 1.15), order=st.permutations(NOISE))
def test_noise_that_is_larger_than_the_effect_is_not_a_difference(effect: float, order: list[float]) -> None:
    conclusion = concluded(planted({("processes", 2): effect, ("threads", 2): effect}, tuple(order)))
    assert conclusion.finding.startswith("no difference between 2 processes and one process larger than")
    assert conclusion.setting == {}
    assert sum(line.startswith("no difference") for line in conclusion.evidence) == 3


def test_an_interval_without_1_always_has_a_direction() -> None:
    """1.22 × (1.07 … 1.31) is slower: it was once called nothing that can be seen."""
    seconds = (1.07, 1.1, 1.15, 1.2, 1.22, 1.25, 1.28, 1.3, 1.31)
    conclusion = concluded(planted({("processes", 2): 1.0}, seconds))
    assert conclusion.finding.startswith("2 processes are slower than one process: 1.22 × (1.07 … 1.31) as long")
    (speed_up,) = conclusion.estimates
    assert speed_up.high < 1


def test_processes_that_are_slower_are_called_so() -> None:
    conclusion = concluded(planted({("processes", 2): 2.0}))
    assert "2 processes are slower than one process: 2 × (2 … 2) as long" in conclusion.finding
    assert "efficiency of 25%" in conclusion.finding
    assert conclusion.setting == {}


@pytest.mark.parametrize(
    ("processes", "threads", "setting"),
    [
        (0.5, 0.9, {"processes": "2", "threads": "1", "batch_size": "128"}),
        (0.5, 0.5, {"threads": "2"}),
        (0.6, 0.5, {"threads": "2"}),
        (1.5, 0.6, {"threads": "2"}),
    ],
)
def test_threads_are_preferred_unless_processes_are_clearly_faster(
    processes: float, threads: float, setting: dict[str, str]
) -> None:
    assert concluded(planted({("processes", 2): processes, ("threads", 2): threads})).setting == setting


def test_a_job_that_takes_all_rows_at_once_needs_no_other_batch() -> None:
    conclusion = concluded(planted({("processes", 2): 0.5}), batch_size=0)
    assert conclusion.setting == {"processes": "2", "threads": "1"}


def test_rounds_with_different_numbers_of_rows_are_compared_row_for_row() -> None:
    turn = planted({("processes", 2): 0.5})[:2]
    steps = PARALLEL.measurements([turn[0], {**turn[1], "rows": 128}])
    (actual,) = speed_ups(of_kind(steps, StepTime))
    assert (actual.speed_up, actual.efficiency) == (1.0, 50.0)  # half of the rows in half of the time


def test_any_rows_and_none_lead_to_a_verdict() -> None:
    assert concluded([]).finding == "not enough was measured for an answer"
    rows = planted({("processes", 2): 0.5, ("threads", 2): 0.9})
    assert "too few rounds" in concluded(rows[:2]).finding
    for many in itertools.takewhile(lambda many: many <= len(rows), itertools.count(1)):
        assert concluded(rows[:many]).finding
