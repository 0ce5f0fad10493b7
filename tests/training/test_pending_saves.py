"""Saves on a disk that is slower than the requests: memory holds few copies of the state, and no request is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import torch

from epochtop.engine.job import state
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.commands import Pause, Resume, Save, Stop
from epochtop.engine.protocol.events import Saved
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import create
from epochtop.engine.training import checkpoint
from epochtop.engine.training.loop import Loop
from epochtop.engine.training.recorder import MOST_PENDING, Recorder
from tests.support.engines import HANGING_S, events, wait_until

ENDLESS = RunSpec(epochs=10**9, device="cpu", threads=1, executor="eager", refresh_ms=10, eval_every=0, save_every=0)


class SlowDisk:
    """A disk that writes checkpoints only when `allow` is called, or all of them once it is `open`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = False
        self._turns = threading.Semaphore(0)
        self.begun: list[tuple[str, int]] = []
        """Kind and step of every checkpoint that was begun."""
        self.captured = 0
        """Copies of the state that were taken."""
        write, capture = checkpoint.write, state.capture

        def slow_write(run: Path, kind: str, step: int, *rest: object) -> None:
            self.begun.append((kind, step))
            if not self.open:
                self._turns.acquire()
            write(run, kind, step, *rest)  # type: ignore[arg-type]

        def counted(*job: object) -> object:
            self.captured += 1
            return capture(*job)  # type: ignore[arg-type]

        monkeypatch.setattr(checkpoint, "write", slow_write)
        monkeypatch.setattr(state, "capture", counted)

    def allow(self) -> None:
        """Let one checkpoint be written."""
        self._turns.release()

    def release(self) -> None:
        """Write all checkpoints from now on."""
        self.open = True
        self.allow()


class Training:
    """A loop in a thread of this process."""

    def __init__(self, home: Path, spec: RunSpec) -> None:
        self.run, self._lock = create(home, spec, {}, 0.0)
        self.recorder = Recorder(self.run, spec)
        self.loop = Loop(prepare_job(spec), self.recorder)
        self.recorder.start(on_command=self.loop.wake)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        torch.set_num_threads(1)
        self.recorder.put(self.loop.run())

    def send(self, *commands: object) -> None:
        """Give commands, as the recorder's thread does."""
        for command in commands:
            self.recorder.commands.put(command)  # type: ignore[arg-type]
        self.loop.wake()
        wait_until(self.recorder.commands.empty)

    def end(self) -> None:
        """Stop and close."""
        self.send(Stop())
        self._thread.join(HANGING_S)
        assert self.recorder.close()
        self._lock.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    """Every checkpoint waits."""
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.release()


def test_requests_are_merged_while_a_save_waits_for_the_disk(home: Path, disk: SlowDisk) -> None:
    training = Training(home, ENDLESS)
    training.send(Save())
    wait_until(lambda: disk.begun)
    first = training.loop.step
    for _ in range(40):
        training.send(Save())
    wait_until(lambda: training.loop.step > first + 100)
    assert (disk.captured, len(disk.begun)) == (1, 1)
    disk.allow()
    wait_until(lambda: len(disk.begun) == 2)  # all requests together
    assert disk.captured == 2
    disk.release()
    training.end()
    steps = [event.step for event in events(training.run) if isinstance(event, Saved) and event.kind == "last"]
    assert len(steps) == 3
    assert steps == sorted(set(steps))


def test_memory_stays_flat_while_someone_holds_the_key_for_saving(home: Path, disk: SlowDisk) -> None:
    """Each copy of the state that waits is as large as the model; an engine grew from 401 MB to 3 GB."""
    training = Training(home, msgspec.structs.replace(ENDLESS, hidden=(1500, 1500), eval_epochs=0))
    training.send(Save())
    wait_until(lambda: disk.begun)
    process, copies = psutil.Process(), 60
    before = process.memory_info().rss
    for _ in range(copies):
        training.send(Save())
    copy_bytes = 4 * sum(parameter.numel() for parameter in training.loop.job.model.parameters())
    assert copy_bytes > 8 << 20
    assert (process.memory_info().rss - before) / copy_bytes < copies / 10
    disk.release()
    training.end()


def test_a_request_in_a_pause_waits_for_an_older_state_only(home: Path, disk: SlowDisk) -> None:
    training = Training(home, ENDLESS)
    training.send(Save())
    wait_until(lambda: disk.begun)
    training.send(Pause(), Save(), Save())
    disk.allow()
    wait_until(lambda: len(disk.begun) == 2)
    training.send(Save(), Save(), Save())
    assert disk.captured == 2
    paused_at = training.loop.step
    assert disk.begun[1] == ("last", paused_at)
    disk.release()
    training.send(Resume())
    training.end()


def test_training_waits_if_the_checkpoints_of_epochs_outrun_the_disk(home: Path, disk: SlowDisk) -> None:
    spec = RunSpec(keep_epochs=1, epochs=20, device="cpu", threads=1, executor="eager", eval_every=0, save_every=0)
    training = Training(home, spec)
    wait_until(lambda: training.loop.step == MOST_PENDING + 1)
    for waiting in range(2, 5):
        disk.allow()
        wait_until(lambda waiting=waiting: training.loop.step == MOST_PENDING + waiting)
    disk.release()
    training.end()
    kept = {event.kind for event in events(training.run) if isinstance(event, Saved)}
    assert kept >= {f"epoch-{number}" for number in range(1, 5)}
