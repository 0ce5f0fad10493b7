"""Runs on a disk that is full: no loss is lost while there is a chance, and no run without its result is a success."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.process import daemon
from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import (
    CHECKPOINT_DELAYED,
    CHECKPOINT_FAILED,
    DISK_SPACE,
    Failed,
    Finished,
    Saved,
    Warned,
)
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.log import UNSAVED_STATUS
from epochtop.engine.runs.paths import CHECKPOINTS, EVENTS, RESERVE
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.writer import create
from epochtop.engine.training import checkpoint, recorder
from epochtop.engine.training.loop import Loop
from epochtop.engine.training.recorder import PendingSave, Recorder
from epochtop.recording import log
from epochtop.tui.cli.train import STATUS
from epochtop.tui.client.standby import how_it_ended
from epochtop.tui.state.run import RunState
from tests.runs.test_files import names
from tests.support.engines import HANGING_S, Engine, events, finished, losses, train_here, wait_until

SMALL = """
import resource, sys
from epochtop.engine.process import standby
from epochtop.engine.training import recorder
recorder.PATIENCE_S = 1.0
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.exit(standby.main())
"""
"""An engine whose files the kernel limits to 150 kB: the log fits, a checkpoint of WIDE does not."""
WIDE = RunSpec(
    hidden=(200, 200), epochs=60, optimizer="adam", learning_rate=0.001, device="cpu", threads=1, executor="eager",
    save_every=0.05,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def run(home: Path) -> Iterator[Path]:
    """The directory of a run served by this process."""
    path, lock = create(home, RunSpec(), {}, time.time())
    with lock:
        yield path


# --- the last checkpoint -------------------------------------------------------------------------------------


def test_a_run_without_its_last_checkpoint_is_unsaved_everywhere_and_resumes(home: Path) -> None:
    straight = train_here(WIDE, home)
    with Engine(("-c", SMALL)) as engine:
        run = engine.train(WIDE, home)
        status = engine.wait()
    assert status == UNSAVED_STATUS == STATUS["unsaved"] != 0
    assert names(run / CHECKPOINTS) == []
    end = finished(run)
    assert (end.outcome, end.steps) == ("unsaved", 60)
    assert "all 60 steps are done" in end.reason
    assert "File too large" in end.reason
    parameters = 4 * 200 + 200 + 200 * 200 + 200 + 200 * 3 + 3
    assert 16 * parameters < (size := _bytes_in(end.advice)) < 16 * parameters * 1.1  # best, last, and Adam's two
    assert size
    assert f"epochtop resume {run.name}" in end.advice
    assert "from the start" in end.advice
    warnings = [event for event in events(run) if isinstance(event, Warned)]
    assert {event.code for event in warnings} == {CHECKPOINT_FAILED}
    assert not [event for event in events(run) if isinstance(event, Saved)]

    summary = summarize(run)
    assert summary.state == "unsaved"
    assert end.reason in summary.note
    assert end.advice in summary.note
    state = RunState(read_record(run))
    lines = [line for event in events(run) for line in state.apply(event)]
    assert (state.state, state.over, state.can_resume, lines[-1].kind) == ("unsaved", True, True, "failure")
    assert end.reason in lines[-1].text
    assert end.advice in lines[-1].text

    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        assert engine.wait() == 0
    assert finished(run).outcome == "finished"
    np.testing.assert_array_equal(losses(run), losses(straight))
    (_, weights), (_, same) = checkpoint.read(run, "last"), checkpoint.read(straight, "last")
    assert all(torch.equal(weights[name], same[name]) for name in same)


def _bytes_in(advice: str) -> float:
    """The size in `free at least 665 KiB for …`."""
    number, unit = advice.removeprefix("free at least ").split()[:2]
    return float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "kB": 1e3, "MB": 1e6}[unit]


def test_a_stopped_run_without_its_last_checkpoint_names_the_one_it_resumes_from(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write

    def refuse(path: Path, kind: str, step: int, *rest: object) -> None:
        if step == 9:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write(path, kind, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write", refuse)
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.01)
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    writing.put(PendingSave("last", 6, {"weight": torch.ones(2)}, {}))
    writing.put(PendingSave("last", 9, {"weight": torch.ones(2)}, {}, final=True))
    writing.put(ended("stopped", "stopped by ada"))
    assert writing.close()
    assert writing.unsaved
    end = finished(run)
    assert end.outcome == "unsaved"
    assert end.reason.startswith("stopped by ada")
    assert "Disk quota exceeded" in end.reason
    assert "continues from step 6" in end.advice


def test_the_last_checkpoint_is_tried_again_until_there_is_space(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    write = checkpoint.write

    def refuse_twice(path: Path, kind: str, step: int, *rest: object) -> None:
        tries.append(step)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, kind, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write", refuse_twice)
    monkeypatch.setattr(recorder, "RETRY_S", 0.01)
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    writing.put(PendingSave("last", 9, {"weight": torch.ones(2)}, {}, final=True))
    writing.put(ended("finished", "done"))
    assert writing.close()
    assert not writing.unsaved
    warned, saved, end = events(run)
    assert isinstance(warned, Warned)
    assert "again for 30.0 s" in warned.message
    assert (saved, end) == (Saved(step=9, kind="last"), ended("finished", "done"))


@pytest.mark.parametrize("refusals", [1, 3, 1000], ids=["last save", "end", "never"])
def test_best_weights_that_the_disk_refused_are_written_later(
    run: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    tries: list[str] = []
    write = checkpoint.write

    def refuse_best(path: Path, kind: str, *rest: object) -> None:
        tries.append(kind)
        if kind == "best" and tries.count("best") <= refusals:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write", refuse_best)
    monkeypatch.setattr(recorder, "RETRY_S", 0.001)
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.1)
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    for save in (
        PendingSave("best", 4, {"weight": torch.ones(2)}, {}),
        PendingSave("last", 5, {"weight": torch.ones(2)}, {}),
    ):
        writing.put(save)
    writing.put(PendingSave("last", 9, {"weight": torch.ones(2)}, {}, final=True))
    writing.put(ended("finished", "done"))
    assert writing.close()
    saved = [event.kind for event in events(run) if isinstance(event, Saved)]
    assert saved == {1: ["last", "best", "last"], 3: ["last", "last", "best"], 1000: ["last", "last"]}[refusals]
    assert (finished(run).outcome, writing.unsaved) == (("unsaved", True) if refusals == 1000 else ("finished", False))
    assert checkpoint.exists(run, "best") == (refusals < 1000)


def ended(outcome: str, reason: str) -> Finished:
    """A summary of nine steps."""
    return Finished(
        time=1.0, outcome=outcome, reason=reason, steps=9, epochs=9.0, seconds=1.0, steps_per_second=9.0,  # type: ignore[arg-type]
        final_loss=1.0, best_loss=1.0, best_step=8, device_reads=1, waited_seconds=0.0,
    )  # fmt: skip


# --- the log -------------------------------------------------------------------------------------------------


class FullDisk:
    """`os.write` to a log on a full disk, where only the space of the reserve can be freed."""

    def __init__(self, run: Path) -> None:
        self._run, self.log, self.full, self._write = run, (run / EVENTS).stat(), True, os.write
        self._free = log.RESERVE_BYTES

    def write(self, descriptor: int, content: bytes) -> int:
        if not self.full or not os.path.samestat(os.fstat(descriptor), self.log):
            return self._write(descriptor, content)
        space = 0 if (self._run / RESERVE).exists() else self._free
        if not space:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(descriptor, content[:space])
        self._free -= written
        return written


@pytest.mark.parametrize("waiting", [10, 10_000], ids=["a few lines wait", "more lines wait than fit"])
def test_a_run_on_a_full_disk_still_records_how_it_ended(
    run: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(os, "write", FullDisk(run).write)
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.01)
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    for number in range(waiting):
        writing.put(Warned(message=f"event {number}"))
    writing.put(PendingSave("last", 9, {"weight": torch.ones(2)}, {}, final=True))
    writing.put(ended("finished", "all steps are done"))
    assert writing.close()
    assert writing.unsaved
    end = finished(run)
    assert end.outcome == "unsaved"
    assert "No space left on device" in end.reason
    before = events(run)[:-1]
    codes = [event.code for event in before if isinstance(event, Warned)]
    assert len(codes) == (0 if waiting > 10 else waiting + 2)
    assert {*codes} - {""} == (set() if waiting > 10 else {DISK_SPACE, CHECKPOINT_DELAYED})


def test_an_engine_that_cannot_record_its_end_shows_it_in_its_exit_status() -> None:
    assert "disk is full" in how_it_ended(UNSAVED_STATUS)
    assert how_it_ended(1) == "exit status 1"


def test_memory_is_bounded_while_the_disk_is_full_and_no_step_is_lost(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(
        epochs=4000, device="cpu", threads=1, executor="eager", refresh_ms=10, eval_every=0.0, save_every=0.0
    )
    straight = train_here(spec, home)
    monkeypatch.setattr(log, "BACKLOG_BYTES", 4000)
    job = prepare_job(spec)
    run, lock = create(home, spec, {}, time.time())
    disk = FullDisk(run)
    monkeypatch.setattr(os, "write", disk.write)
    with lock:
        writing = Recorder(run, spec)
        training = Loop(job, writing)
        writing.start(on_command=training.wake)
        ends: list[Finished] = []
        thread = threading.Thread(target=lambda: ends.append(training.run()))
        thread.start()
        wait_until(lambda: writing.congested)
        wait_until(lambda: training.clock._started_at is None)
        waiting_at = training.step
        time.sleep(0.3)
        assert training.step == waiting_at < 4000
        disk.full = False
        thread.join(HANGING_S)
        writing.put(ends[0])
        assert writing.close()
    np.testing.assert_array_equal(losses(run), losses(straight))
    assert finished(run).outcome == "finished"
    assert [event.code for event in events(run) if isinstance(event, Warned)] == [DISK_SPACE]


def test_a_run_that_waits_for_the_disk_can_be_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(
        epochs=10**9, device="cpu", threads=1, executor="eager", refresh_ms=10, eval_every=0.0, save_every=0.0
    )
    monkeypatch.setattr(log, "BACKLOG_BYTES", 4000)
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.01)
    job = prepare_job(spec)
    run, lock = create(home, spec, {}, time.time())
    monkeypatch.setattr(os, "write", FullDisk(run).write)
    with lock:
        writing = Recorder(run, spec)
        training = Loop(job, writing)
        writing.start(on_command=training.wake)
        thread = threading.Thread(target=lambda: writing.put(training.run()))
        thread.start()
        wait_until(lambda: writing.congested)
        writing.commands.put(Stop(by="ada"))
        training.wake()
        thread.join(HANGING_S)
        assert not thread.is_alive()
        assert writing.close()
    assert finished(run).outcome == "unsaved"
    assert "stopped by ada" in finished(run).reason


def test_prints_on_a_full_disk_are_dropped_and_do_not_raise() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stream = daemon.OutputLog.stream(full)
    stream.write("a line\n" * 10_000)
    stream.flush()
    os.close(full)


PRINTING = """
def make_task():
    import torch
    from torch import nn
    from epochtop import Task

    class Chatty(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x):
            print("a line of output " * 1000)
            return self.layer(x)

    torch.manual_seed(0)
    return Task(Chatty(), (torch.randn(12, 2), torch.arange(12) % 3))
"""


def test_a_task_that_prints_trains_on_while_output_log_cannot_grow(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "chatty.py"
    file.write_text(PRINTING)
    spec = RunSpec(task=f"{file}:make_task", epochs=200, device="cpu", threads=1, executor="eager", eval_every=0.0)
    with Engine(("-c", SMALL)) as engine:
        run = engine.train(spec, home)
        assert engine.wait() == 0
    assert len(losses(run)) == 200
    assert (run / "output.log").stat().st_size <= 150_000
    assert not [event for event in events(run) if isinstance(event, Failed)]
