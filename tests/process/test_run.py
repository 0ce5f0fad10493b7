"""A run in its own process: commands, signals, deaths, and the files it leaves."""

from __future__ import annotations

import os
import random
import signal
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from epochtop.engine.protocol.commands import Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.events import (
    Changed,
    Evaluated,
    Failed,
    Finished,
    Logged,
    Paused,
    Resumed,
    Saved,
    Started,
    Warned,
    encode,
)
from epochtop.engine.protocol.requests import Begin
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths, summarize
from epochtop.engine.runs.paths import CHECKPOINTS, COMMANDS
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.engine.runs.writer import send
from epochtop.engine.training import checkpoint
from tests.support import plain_loop
from tests.support.engines import Engine, Watch, events, finished, losses, windows

ENDLESS = 10**9


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def asked(**fields: object) -> RunSpec:
    """An Iris run on one thread that continues until it is stopped."""
    return RunSpec(
        **({"epochs": ENDLESS, "threads": 1, "device": "cpu", "refresh_ms": 20, "executor": "eager"} | fields)
    )  # type: ignore[arg-type]


def iris_loop(**fields: object) -> plain_loop.Plain:
    """The plain loop of :func:`asked`."""
    data = plain_loop.rows("iris")
    return plain_loop.Plain(data.x, data.y, (4, 10, 3), partial(SGD, lr=0.01), **fields)  # type: ignore[arg-type]


# --- commands ----------------------------------------------------------------------------------------------


def test_no_step_is_missing_and_a_new_rate_applies_from_the_recorded_step(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(asked(save_every=0.05, eval_every=0.05), home))
    watch.windows(2)
    first, _ = watch.command(Set(field="learning_rate", value=0.5, by="me"), Changed)
    watch.windows()
    paused, _ = watch.command(Pause(by="me"), Paused)
    second, _ = watch.command(Set(field="learning_rate", value=0.002), Changed)
    watch.command(Save(), Saved)
    resumed, _ = watch.command(Resume(by="you"), Resumed)
    watch.windows()
    watch.command(Set(field="refresh_ms", value=35), Changed)
    watch.command(Save(), Saved)
    watch.windows(2)
    watch.command(Stop(), Finished)

    end = finished(watch.run)
    assert (first.field, first.value, first.by, paused.by, resumed.by) == ("learning_rate", 0.5, "me", "me", "you")
    assert paused.step == second.step == resumed.step
    changes = {first.step: 0.5, second.step: 0.002}
    expected, _ = iris_loop(rates=changes).train(end.steps)
    np.testing.assert_array_equal(losses(watch.run), expected)
    assert 0 < first.step < second.step < end.steps


def test_a_pause_records_all_steps_before_it_and_none_until_the_run_resumes(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(asked(), home))
    watch.windows(2)
    paused, _ = watch.command(Pause(), Paused)
    assert len(losses(watch.run)) == paused.step
    for _ in range(3):  # a loop that does not wait would continue at these moments
        changed, windows = watch.command(Set(field="refresh_ms", value=20), Changed)
        assert (changed.step, windows) == (paused.step, 0)
    assert summarize(watch.run).state == "paused"
    watch.command(Resume(), Resumed)
    assert summarize(watch.run).state == "running"
    watch.windows(2)
    assert len(losses(watch.run)) > paused.step


@pytest.mark.parametrize("refresh_ms", [50, 200])  # the engine looks for commands every 20 ms
def test_commands_are_answered_within_two_refreshes(engine: Engine, home: Path, refresh_ms: int) -> None:
    """Counted in windows of losses: two, and one that may be in flight while the command is sent."""
    watch = Watch(engine.train(asked(refresh_ms=refresh_ms, save_every=0.0), home))
    watch.until(Logged)
    answers = (
        (Set(field="learning_rate", value=0.02), Changed),
        (Set(field="refresh_ms", value=refresh_ms), Changed),
        (Save(), Saved),
        (Pause(), Paused),
        (Resume(), Resumed),
        (Stop(), Finished),
    )
    for command, answer in answers:
        _, windows = watch.command(command, answer)
        assert windows <= 3, command
    assert engine.wait() == 0


def test_a_long_refresh_does_not_delay_an_answer(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(asked(refresh_ms=60_000), home))
    watch.until(Logged)
    watch.command(Pause(), Paused)
    newest = windows(watch.seen)[-1]
    assert newest.seconds < 60
    watch.command(Stop(), Finished)


def test_stop_evaluates_saves_and_records_the_reason(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(asked(eval_every=0.0, save_every=0.0), home))
    watch.windows(2)
    with open(watch.run / COMMANDS, "ab") as file:  # a viewer's garbage is skipped
        file.write(b'\xff\n{"type":"Explode"}\n{"type":"Stop","by":"\xfe"}\n' + b'{"type":' * 100_000 + b"\n\n")
    watch.command(Set(field="learning_rate", value=-1.0), Warned)
    watch.command(Set(field="refresh_ms", value=0.0), Warned)
    watch.command(Stop(by="ada@engine:7"), Finished)
    assert engine.wait() == 0

    happened = events(watch.run)
    assert isinstance(happened[0], Started)
    end = happened[-1]
    assert isinstance(end, Finished)
    assert sum(isinstance(event, Finished | Failed) for event in happened) == 1
    assert (end.outcome, end.steps) == ("stopped", len(losses(watch.run)))
    assert "ada@engine:7" in end.reason
    assert not any(isinstance(event, Changed) for event in happened)
    tested = [event for event in happened if isinstance(event, Evaluated)]
    assert [event.step for event in tested] == [end.steps]
    assert (end.test_loss, end.test_metric) == (tested[0].loss, tested[0].metric)
    assert {(event.kind, event.step) for event in happened if isinstance(event, Saved)} == {
        ("last", end.steps),
        ("best", end.steps),
    }
    assert (watch.run / "events.jsonl").read_bytes().endswith(b"\n")


# --- ends --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged_at_its_step(
    engine: Engine, home: Path, tmp_path: Path
) -> None:
    table = np.random.default_rng(0).normal(size=(50, 3))
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="a,b,c", comments="", fmt="%.17g")
    data = plain_loop.split(table[:, :2], (table[:, 2]), np.float64)
    labels = ((data.y - data.y.mean()) / data.y.std(correction=0)).float()
    loop = plain_loop.Plain(data.x, labels, (2, 3, 1), partial(SGD, lr=5.0), plain_loop.first_column(nn.MSELoss()))
    expected, _ = loop.train(2000)
    first = int(np.argmin(np.isfinite(expected)))
    assert first > 0

    spec = asked(dataset=f"csv:{tmp_path}/table.csv", target="c", hidden=(3,), learning_rate=5.0)
    run = engine.train(spec, home)
    assert engine.wait() == 0
    end = finished(run)
    assert (end.outcome, end.diverged_step, end.final_loss) == ("diverged", first, None)
    assert "lower the learning rate" in end.advice
    recorded = losses(run)
    assert len(recorded) == end.steps > first
    np.testing.assert_array_equal(recorded[: first + 1], expected[: first + 1])
    assert end.best_loss == min(expected[:first])
    assert end.best_step == int(np.argmin(expected[:first]))
    summary = summarize(run)
    assert summary.state == "diverged"
    assert "learning rate" in summary.note


BROKEN = """
import sys
from epochtop.engine.job import job
from epochtop.engine.process import standby
class Breaking(job.ResidentBatches):
    taken = 0
    def __call__(self):
        self.taken += 1
        if self.taken > 3:
            raise RuntimeError("the rows are gone")
        return super().__call__()
job.ResidentBatches = Breaking
sys.exit(standby.main())
"""


def test_an_exception_becomes_failed_and_the_losses_before_it_are_kept(home: Path) -> None:
    with Engine(("-c", BROKEN)) as engine:
        run = engine.train(asked(batch_size=40), home)
        assert engine.wait() == 1
    last = events(run)[-1]
    assert isinstance(last, Failed)
    assert "the rows are gone" in last.message
    assert "RuntimeError" in last.traceback
    assert last.step == len(losses(run)) == 3
    assert summarize(run).state == "failed"
    assert "the rows are gone" in summarize(run).note


# --- signals, pipes and other processes --------------------------------------------------------------------


def test_hangup_is_ignored_and_termination_is_a_clean_stop(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(asked(), home))
    watch.until(Logged)
    engine.process.send_signal(signal.SIGHUP)
    watch.windows(2)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.wait() == 0
    end = finished(watch.run)
    assert end.outcome == "stopped"
    assert "SIGTERM" in end.reason
    assert checkpoint.read(watch.run, "last")[0].step == end.steps == len(losses(watch.run))


def test_termination_ends_a_paused_run_too(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(asked(), home))
    watch.until(Logged)
    paused, _ = watch.command(Pause(), Paused)
    engine.process.send_signal(signal.SIGINT)
    assert engine.wait() == 0
    assert (finished(watch.run).outcome, finished(watch.run).steps) == ("stopped", paused.step)


def test_a_viewer_that_disconnects_before_the_reply_does_not_stop_the_run(engine: Engine, home: Path) -> None:
    engine.tell(encode(Begin(spec=asked(epochs=2_000), home=str(home))))
    engine.hang_up()
    assert engine.wait() == 0
    (run,) = run_paths(home)
    assert finished(run).outcome == "finished"
    assert len(losses(run)) == 2_000


def test_a_standby_ends_with_its_input_and_leaves_no_files(engine: Engine, home: Path) -> None:
    assert engine.process.stdin is not None
    engine.process.stdin.close()
    assert engine.wait() == 0
    assert not home.exists()


@pytest.fixture
def _everything_allowed() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_everything_allowed")
def test_two_engines_train_at_the_same_time_in_private_folders(home: Path) -> None:
    with Engine() as one, Engine() as two:
        runs = [engine.train(asked(name="twin"), home) for engine in (one, two)]
        assert len({*runs}) == 2
        for engine, run in zip((one, two), runs, strict=True):
            assert stat.S_IMODE(run.stat().st_mode) == 0o700
            assert read_record(run).pid == engine.process.pid
            assert is_alive(run)
            Watch(run).until(Logged)
        send(runs[0], Stop())
        assert one.wait() == 0
        assert [is_alive(run) for run in runs] == [False, True]
        send(runs[1], Stop())
        assert two.wait() == 0
    assert not is_alive(runs[1])
    shared = min(map(len, map(losses, runs)))
    np.testing.assert_array_equal(losses(runs[0])[:shared], losses(runs[1])[:shared])
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


# --- deaths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", range(4))
def test_a_killed_engine_leaves_a_readable_log_and_complete_checkpoints(
    engine: Engine, home: Path, attempt: int
) -> None:
    watch = Watch(engine.train(asked(save_every=0.001, eval_every=0.001, refresh_ms=10), home))
    watch.until(Saved if attempt else Started)
    time.sleep(random.random() * 0.2)  # any moment will do
    watch.catch_up()
    engine.process.kill()
    engine.wait()

    summary = summarize(watch.run)
    assert (is_alive(watch.run), summary.state) == (False, "died")
    assert summary.note.startswith("the engine died")
    left = events(watch.run)
    assert left[: len(watch.seen)] == watch.seen
    recorded = losses(watch.run)
    if not (watch.run / CHECKPOINTS / "last.json").exists():
        assert not any(isinstance(event, Saved) for event in left)
        with pytest.raises(Invalid, match="has no checkpoint"):
            checkpoint.read(watch.run, "last")
        return
    info, tensors = checkpoint.read(watch.run, "last")
    expected, model = iris_loop().train(max(info.step, len(recorded)))
    np.testing.assert_array_equal(recorded, expected[: len(recorded)])
    _, model = iris_loop().train(info.step)
    for name, weight in model.state_dict().items():
        assert torch.equal(tensors[f"model.{name}"], weight)
