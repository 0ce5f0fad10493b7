"""Evaluations take a bounded share of the time, a bounded number of rows, and end when a run is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.commands import Pause, Resume, Stop
from epochtop.engine.protocol.events import EVALUATION_CUT, Evaluated, Paused, Resumed, Started, Warned
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import send
from epochtop.engine.training.clock import EvaluationBudget
from tests.support.engines import Engine, Watch, events, finished, train_here, wait_until

TASKS = '''
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset

from epochtop import Task

LOG, GO = Path(__file__).with_suffix(".log"), Path(__file__).with_suffix(".go")


class Rows(Dataset):
    """Row numbers; logs every row if its name is given, takes its time, and waits for a file where it is held."""

    def __init__(self, rows, name="", pause_s=0.0, held=False):
        self.rows, self.name, self.pause_s, self.held = rows, name, pause_s, held

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        time.sleep(self.pause_s)
        while self.held and row == 1 and not GO.exists():
            time.sleep(0.01)
        if self.name:
            with LOG.open("a") as log:
                print(self.name, row, file=log)
        return torch.full((2,), row / self.rows), torch.zeros(1)


def task(train, test=None, validation=None):
    loss = torch.nn.functional.mse_loss
    return Task(model=torch.nn.Linear(2, 1), train=train, test=test, validation=validation, loss=loss)


def many():
    return task(Rows(100_000))


def few():
    return task(Rows(300))


def arrays():
    x = torch.arange(20_000.0).reshape(-1, 1).expand(-1, 2)
    return task((x, x[:, :1]))


def slow_test():
    return task(Rows(32, pause_s=0.001), test=Rows(20, "test", 0.01))


def held_test():
    return task(Rows(32, pause_s=0.001), test=Rows(20, "test", 0.01, held=True))


def endless_test():
    return task(Rows(32), test=Rows(10**6, "test", 0.01))
'''

COMMON = {"device": "cpu", "threads": 1, "refresh_ms": 10, "batch_size": 8, "learning_rate": 0.001, "executor": "eager"}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A file of tasks that take their time."""
    file = tmp_path / "waiting.py"
    file.write_text(TASKS, encoding="utf-8")
    return file


def spec_of(tasks: Path, function: str, **fields: object) -> RunSpec:
    """A run of one of the tasks."""
    return RunSpec(task=f"{tasks}:{function}", **(COMMON | fields))  # type: ignore[arg-type]


# --- rows --------------------------------------------------------------------------------------------------


def test_without_test_rows_a_sample_of_the_training_rows_is_evaluated(tasks: Path) -> None:
    job = prepare_job(spec_of(tasks, "many", batch_size=4096))
    assert job.eval_split == "train"
    chosen = (torch.cat([x[:, 0] for x, _, _ in job.eval_batches]) * 100_000).round().int()
    assert len(chosen) == len(job.eval_batches) == 8192
    assert (chosen.diff() > 0).all()  # no row twice
    quarters = chosen.div(25_000, rounding_mode="floor").bincount()
    assert (quarters - 2048).abs().max() < 5 * (8192 * 0.25 * 0.75) ** 0.5  # five standard deviations
    assert any("8,192 of the 100,000 training rows" in note for note in job.notes)


def test_a_sample_of_arrays_has_the_rows_of_the_arrays(tasks: Path) -> None:
    job = prepare_job(spec_of(tasks, "arrays"))
    chosen = torch.cat([x[:, 0] for x, _, _ in job.eval_batches])
    assert len(chosen.unique()) == 8192
    assert torch.equal(torch.cat([y[:, 0] for _, y, _ in job.eval_batches]), chosen)


def test_few_training_rows_are_all_evaluated(tasks: Path) -> None:
    job = prepare_job(spec_of(tasks, "few"))
    assert len(job.eval_batches) == 300
    assert not any("choose the best weights" in note for note in job.notes)


# --- time --------------------------------------------------------------------------------------------------


def simulated(duration_s: float, total_s: float, batches: int = 100, first_s: float = 0.0) -> tuple[float, int]:
    """Share of the time that evaluations take, and how many are complete, if each takes `duration_s`.

    The loop looks at the clock every 0.1 s. An interruption happens between two batches; the very first takes `first_s`
    more.
    """
    budget, now, spent, complete, next_s = EvaluationBudget(), 0.0, 0.0, 0, 0.5
    while now < total_s:
        if now >= next_s and budget.allows(now):
            taken, done, started_at = 0.0, 0, now
            while done < batches and taken <= budget.remaining_s(started_at):
                taken += duration_s / batches + (first_s if spent + taken == 0 else 0.0)
                done += 1
            now, spent, next_s = now + taken, spent + taken, now + taken + 0.5
            if done == batches:
                budget.complete(taken)
                complete += 1
            else:
                budget.interrupt(taken, done / batches)
        now += 0.1
    return spent / now, complete


@pytest.mark.parametrize("duration_s", [0.001, 0.02, 0.1, 0.7, 3.0, 20.0])
def test_evaluations_take_at_most_a_twentieth_of_the_time(duration_s: float) -> None:
    share, complete = simulated(duration_s, total_s=4000.0)
    assert share <= 0.0501
    most = min(4000 * 0.05 / duration_s, 4000 / 0.6)
    assert complete >= 0.5 * most


def test_a_slow_first_batch_does_not_postpone_evaluations_for_long() -> None:
    """0.2 s for the first batch of 100 would be 20 s, and 400 s of training; the evaluation takes 0.1 s."""
    assert simulated(0.1, total_s=40.0, first_s=0.2)[1] >= 3


def test_a_run_evaluates_slow_test_rows_rarely(tasks: Path, home: Path) -> None:
    """An evaluation takes about as long as 6 epochs: without a limit every window would have one."""
    run = train_here(spec_of(tasks, "slow_test", epochs=100, eval_every=0.01), home)
    end = finished(run)
    rows = len(tasks.with_suffix(".log").read_text().splitlines())
    assert end.test_loss is not None
    before_the_end = 0.01 * (rows - 20)
    assert before_the_end <= 0.05 * max(end.seconds, 2.0) + 0.1  # a batch may begin at the limit


# --- commands ----------------------------------------------------------------------------------------------


def lines(tasks: Path) -> int:
    """Test rows evaluated so far."""
    log = tasks.with_suffix(".log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_stop_ends_an_evaluation(tasks: Path, home: Path) -> None:
    """The million test rows would take three hours."""
    with Engine() as engine:
        run = engine.train(spec_of(tasks, "endless_test", epochs=10, eval_epochs=1), home)
        Watch(run).until(Started)
        wait_until(lambda: lines(tasks))
        send(run, Stop())
        send(run, Stop())
        assert engine.wait() == 0
    end = finished(run)
    assert (end.outcome, end.steps) == ("stopped", 4)
    assert (end.test_loss, end.test_metric, end.metrics) == (None, None, {})
    assert [event.code for event in events(run) if isinstance(event, Warned)] == [EVALUATION_CUT]
    assert not [event for event in events(run) if isinstance(event, Evaluated)]


def test_an_evaluation_after_a_stop_does_not_take_long(tasks: Path, home: Path) -> None:
    with Engine() as engine:
        run = engine.train(spec_of(tasks, "endless_test", epochs=10**6, eval_every=0), home)
        watch = Watch(run)
        watch.windows(2)
        send(run, Stop())
        assert engine.wait() == 0
    assert lines(tasks) < 1000
    assert [event.code for event in events(run) if isinstance(event, Warned)] == [EVALUATION_CUT]


def test_an_evaluation_that_a_pause_interrupted_is_repeated(tasks: Path, home: Path) -> None:
    """With `eval_epochs` every evaluation takes place, whatever happens meanwhile."""
    spec = spec_of(tasks, "held_test", epochs=3, eval_epochs=1)
    with Engine() as engine:
        run = engine.train(spec, home)
        wait_until(lambda: lines(tasks))
        watch = Watch(run)
        send(run, Pause())
        tasks.with_suffix(".go").touch()
        watch.until(Paused)
        watch.command(Resume(), Resumed)
        assert engine.wait() == 0
    assert [event.step for event in events(run) if isinstance(event, Evaluated)] == [4, 8, 12]
    assert lines(tasks) > 60  # three evaluations of 20 rows, and a part of the first one
    straight = train_here(spec, home)
    figures = [[event.loss for event in events(path) if isinstance(event, Evaluated)] for path in (run, straight)]
    assert figures[0] == figures[1]
