"""Several processes train one model as one process would with all their rows; a failure is reported with its rank."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from epochtop.engine.distributed.leader import Pace
from epochtop.engine.job.plan import describe
from epochtop.engine.job.workload import load_workload
from epochtop.engine.protocol.commands import Pause, Resume, Set
from epochtop.engine.protocol.commands import Save as SaveNow
from epochtop.engine.protocol.events import (
    Changed,
    Continued,
    Failed,
    Finished,
    Paused,
    Resumed,
    Saved,
    Started,
    Warned,
)
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.reader import BadLine
from epochtop.engine.runs.writer import send
from epochtop.engine.training import checkpoint
from tests.support.engines import HANGING_S, Engine, Watch, events, finished, losses, rank_of, ranks, train_here

pytestmark = pytest.mark.xdist_group("processes")  # each test starts two or three processes; one test at a time

COMMON = {"device": "cpu", "threads": 1, "refresh_ms": 20, "eval_every": 0.05, "seed": 3}
LONG = COMMON | {"epochs": 10**6, "processes": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _none_left_behind() -> Iterator[None]:
    """No rank that a test starts outlives it."""
    before = {process.pid for process in ranks()}
    yield
    patience = time.monotonic() + HANGING_S
    while left := [process for process in ranks() if process.pid not in before]:
        assert time.monotonic() < patience, left
        time.sleep(0.05)


# --- the same as one process ----------------------------------------------------------------------------

JOBS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "full batch": ({"epochs": 300}, {}),
    "shuffled, the last batch is uneven": (
        {"dataset": "digits", "hidden": (16,), "epochs": 4, "learning_rate": 0.1, "batch_size": 50},
        {"batch_size": 100},
    ),
    "accumulation, clipping, momentum, a schedule": (
        {
            "dataset": "wine",
            "epochs": 20,
            "momentum": 0.9,
            "batch_size": 8,
            "accumulate": 3,
            "clip_norm": 0.5,
            "schedule": "cosine",
            "warmup": 10,
            "ema": 0.9,
        },
        {"batch_size": 16},
    ),
}


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_take_the_steps_of_one_with_the_double_batch(job: str, home: Path) -> None:
    fields, alone = JOBS[job]
    one = train_here(RunSpec(**(COMMON | fields | alone)), home)  # type: ignore[arg-type]
    with Engine() as engine:
        two = engine.train(RunSpec(**(COMMON | fields), processes=2), home)  # type: ignore[arg-type]
        assert engine.wait() == 0, (events(two), (two / "output.log").read_text())
    np.testing.assert_allclose(losses(two), losses(one), rtol=5e-6)
    (_, weights), (_, expected) = checkpoint.read(two, "last"), checkpoint.read(one, "last")
    for name in (name for name in expected if name.startswith("model.")):
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-4, atol=1e-6)
    ends = finished(two), finished(one)
    assert (ends[0].outcome, ends[0].steps) == (ends[1].outcome, ends[1].steps)
    assert ends[0].test_metric == ends[1].test_metric
    assert next(event for event in events(two) if isinstance(event, Started)).processes == 2
    assert (two / "output.log").read_text() == ""


# --- failures ------------------------------------------------------------------------------------------


def test_a_killed_rank_is_reported_and_the_run_continues_exactly(slow_task: str, home: Path, folder: Path) -> None:
    spec = RunSpec(
        **COMMON,  # type: ignore[arg-type]
        task=slow_task,
        batch_size=50,
        epochs=50,
        processes=2,
        save_every=0.05,
    )
    with Engine() as engine:
        straight = engine.train(spec, home)
        assert engine.wait() == 0
    (folder / "slow").touch()
    with Engine() as engine:
        run = engine.train(spec, home)
        watch = Watch(run)
        watch.until(Saved)
        watch.windows(2)
        rank_of(engine, 1).kill()
        failed = watch.until(Failed)
        assert engine.wait() == 1
    (folder / "slow").unlink()
    assert failed.message == "rank 1 was killed by SIGKILL"
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        assert engine.wait() == 0
    assert next(event for event in events(run) if isinstance(event, Continued)).step > 0
    assert not [event for event in events(run) if isinstance(event, Warned | BadLine)]
    np.testing.assert_array_equal(losses(run), losses(straight))
    (_, weights), (_, expected) = checkpoint.read(run, "last"), checkpoint.read(straight, "last")
    assert weights.keys() == expected.keys()
    for name in weights:
        assert torch.equal(weights[name], expected[name]), name


TASK = """
import os
import time
import torch
from epochtop import Task

def loss(output, y):
    if not torch.is_grad_enabled():  # an evaluation, which rank 0 alone computes: it would count ahead of the others
        return torch.nn.functional.cross_entropy(output, y)
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else None
    if rank == 2 and loss.steps == 5:
        {what}
    if rank == 0 and loss.steps == 5:
        {meanwhile}
    loss.steps += 1
    return torch.nn.functional.cross_entropy(output, y)

loss.steps = 0

def make_task():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=draw)
    return Task(model=torch.nn.Linear(4, 2), train=(x, (x[:, 0] > 0).long()), loss=loss)
"""


@pytest.mark.parametrize(
    ("what", "meanwhile", "message", "trace"),
    [
        ("raise ValueError('these rows are odd')", "pass", "these rows are odd", "ValueError: these rows are odd"),
        ("os._exit(7)", "pass", "rank 2 ended too early, with exit status 7", ""),
        ("os._exit(7)", "time.sleep(10**6)", "rank 2 ended too early, with exit status 7", ""),
    ],
    ids=["an exception", "a death", "a death that the first rank cannot notice"],
)
def test_a_rank_that_fails_ends_the_run_with_its_error(
    what: str, meanwhile: str, message: str, trace: str, home: Path, folder: Path
) -> None:
    file = folder / "own.py"
    file.write_text(TASK.format(what=what, meanwhile=meanwhile))
    with Engine() as engine:
        run = engine.train(RunSpec(**(LONG | {"processes": 3}), task=f"{file}:make_task"), home)  # type: ignore[arg-type]
        failed = Watch(run).until(Failed)
        assert engine.wait() == 1
    assert "rank 2" in failed.message
    assert message in failed.message
    assert trace in failed.traceback
    assert ("own.py" in failed.traceback) == bool(trace)


def test_no_rank_outlives_the_first(home: Path) -> None:
    with Engine() as engine:
        run = engine.train(RunSpec(**LONG), home)  # type: ignore[arg-type]
        Watch(run).windows(1)
        other = rank_of(engine, 1)
        engine.kill()
        other.wait(HANGING_S)


# --- commands --------------------------------------------------------------------------------------------


def test_commands_reach_all_ranks(home: Path) -> None:
    with Engine() as engine:
        run = engine.train(RunSpec(**LONG), home)  # type: ignore[arg-type]
        watch = Watch(run)
        watch.windows(1)
        changed, _ = watch.command(Set(field="learning_rate", value=0.5), Changed)
        watch.windows(2)
        paused, _ = watch.command(Pause(), Paused)
        start = len(watch.seen)
        send(run, SaveNow())
        saved = watch.until(Saved, lambda event: event.kind == "last", start)
        resumed, _ = watch.command(Resume(), Resumed)
        watch.windows(1)
        os.kill(engine.process.pid, signal.SIGTERM)
        ended = watch.until(Finished)
        assert engine.wait() == 0
    assert paused.step == saved.step == resumed.step > changed.step
    assert (ended.outcome, ended.reason) == ("stopped", "stopped by signal SIGTERM")
    # the same steps by one process, with the other rate from the same step on
    model, x, y = _iris_model(run)
    values = losses(run)[: paused.step]
    again = []
    for step in range(len(values)):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        again.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rate = 0.5 if step >= changed.step else 0.01
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight -= rate * gradient
    np.testing.assert_allclose(values, again, rtol=1e-3)


def _iris_model(run: Path) -> tuple[torch.nn.Module, Tensor, Tensor]:
    from tests.support import plain_loop

    torch.manual_seed(COMMON["seed"])  # type: ignore[arg-type]
    data = plain_loop.rows("iris")
    return torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.ReLU(), torch.nn.Linear(10, 3)), data.x, data.y


def test_a_decision_at_an_evaluation_is_the_same_with_two_processes(home: Path) -> None:
    fields = COMMON | {"epochs": 400, "schedule": "plateau", "eval_epochs": 20, "patience": 8, "learning_rate": 3.0}
    one = train_here(RunSpec(**fields), home)  # type: ignore[arg-type]
    with Engine() as engine:
        two = engine.train(RunSpec(**fields, processes=2), home)  # type: ignore[arg-type]
        assert engine.wait() == 0
    lowered = [[event.message for event in events(run) if isinstance(event, Warned)] for run in (one, two)]
    assert lowered[0] == lowered[1]
    assert lowered[0], "nothing was decided: the test shows nothing"
    assert finished(two).steps == finished(one).steps
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-3)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"processes": 200}, "processes", "200 cannot share 120 training rows"),
        ({"processes": 2, "device": "cuda:1"}, "device", "cannot share cuda:1"),
        ({"processes": 2, "device": "mps"}, "device", "cannot share mps"),
        ({"shard": True}, "shard", "at least 2 processes"),
    ],
)
def test_jobs_that_cannot_be_shared_are_refused(fields: dict[str, object], field: str, words: str) -> None:
    spec = RunSpec(**(COMMON | fields))  # type: ignore[arg-type]
    with pytest.raises(Invalid, match=words) as error:
        describe(spec, load_workload(spec))
    assert error.value.field == field


# --- how often rank 0 looks at the clock -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step_s", "refresh_s", "steps"), [(1e-3, 0.1, 100), (1e-3, 0.02, 20), (1e-5, 60, 10_000), (3, 0.1, 1)]
)
def test_orders_are_sent_about_once_per_refresh(step_s: float, refresh_s: float, steps: int) -> None:
    """Not every step, but often enough that commands do not wait in long windows."""
    pace, ordered = Pace(), []
    for _ in range(12):
        ordered.append(pace.steps)
        pace.update(pace.steps, pace.steps * step_s, refresh_s)
    assert ordered[0] == 1
    assert all(after <= 4 * before for before, after in pairwise(ordered))
    assert ordered[-1] == pytest.approx(steps, abs=1)
