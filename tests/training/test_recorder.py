"""The recorder's thread on a full disk, and checkpoints that are read without unpickling."""

from __future__ import annotations

import errno
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from epochtop.engine.protocol.commands import Pause, Stop
from epochtop.engine.protocol.events import DISK_SPACE, Saved, Warned
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.paths import CHECKPOINTS, EVENTS, RESERVE
from epochtop.engine.runs.writer import create, send
from epochtop.engine.training import checkpoint, recorder
from epochtop.engine.training.recorder import PendingSave, Recorder
from tests.support.engines import HANGING_S, events, wait_until


@pytest.fixture
def run(home: Path) -> Iterator[Path]:
    """The directory of a run served by this process."""
    path, lock = create(home, RunSpec(), {}, time.time())
    with lock:
        yield path


class Disk:
    """`os.write` to a log on a disk that may be full and accepts a few bytes at a time."""

    def __init__(self, log: Path) -> None:
        self.log, self.full, self.refused, self._write = log.stat(), False, 0, os.write

    def write(self, descriptor: int, content: bytes) -> int:
        if not os.path.samestat(os.fstat(descriptor), self.log):
            return self._write(descriptor, content)
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(descriptor, content[:7])


class FullOutput:
    """Standard error on the same full disk."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        """Do nothing."""

    def isatty(self) -> bool:
        """A file is not a terminal."""
        return False


def test_a_disk_that_is_full_for_a_while_loses_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(run / EVENTS)
    monkeypatch.setattr(os, "write", disk.write)
    monkeypatch.setattr(sys, "stderr", FullOutput())
    written = [Warned(message=f"event {number} é") for number in range(60)]
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    for event in written[:20]:
        writing.put(event)
    wait_until(lambda: events(run) == written[:20])
    disk.full = True
    for event in written[20:40]:
        writing.put(event)
    wait_until(lambda: disk.refused > 30)
    assert events(run) == written[:20]
    disk.full = False
    for event in written[40:]:
        writing.put(event)
    assert writing.close()
    recorded = events(run)
    (report,) = (event for event in recorded if isinstance(event, Warned) and event.code == DISK_SPACE)
    assert "No space left on device" in report.message
    assert [event for event in recorded if event is not report] == written
    assert not (run / RESERVE).exists()


def test_the_recorder_gives_up_on_a_disk_that_stays_full(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(run / EVENTS)
    disk.full = True
    monkeypatch.setattr(os, "write", disk.write)
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.01)
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    writing.put(Warned(message="never written"))
    assert not writing.close()
    assert events(run) == []


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_the_run_continues(run: Path) -> None:
    (run / CHECKPOINTS).rmdir()
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    writing.put(PendingSave("last", 5, {"weight": torch.ones(2)}, {}))
    writing.put(Warned(message="afterwards"))
    assert writing.close()
    refused, after = events(run)
    assert isinstance(refused, Warned)
    assert "'last'" in refused.message
    assert "step 5" in refused.message
    assert after == Warned(message="afterwards")


def test_commands_and_events_from_before_the_start_are_kept(run: Path) -> None:
    send(run, Pause(by="early"))
    writing = Recorder(run, RunSpec())
    writing.put(Warned(message="early"))
    woken: list[int] = []
    writing.start(on_command=lambda: woken.append(1))
    assert writing.commands.get(timeout=HANGING_S) == Pause(by="early")
    send(run, Stop())
    assert writing.commands.get(timeout=HANGING_S) == Stop()
    wait_until(lambda: len(woken) == 2)
    assert writing.close()
    assert events(run) == [Warned(message="early")]


# --- checkpoints -------------------------------------------------------------------------------------------


TENSORS = {"model.0.weight": torch.arange(6.0).view(2, 3), "rng.cpu": torch.arange(5, dtype=torch.uint8)}


def no_unpickling(*_: Any, **__: Any) -> None:
    raise AssertionError("something was unpickled")


def test_loading_a_checkpoint_unpickles_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write(run, "best", 12, RunSpec(seed=3), TENSORS, {"test_loss": 0.5})
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, no_unpickling)
    monkeypatch.setattr(torch, "load", no_unpickling)
    info, tensors = checkpoint.read(run, "best")
    assert (info.step, info.spec.seed, info.values) == (12, 3, {"test_loss": 0.5})
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def test_a_pickle_in_place_of_a_checkpoint_is_refused_unread(run: Path, tmp_path: Path) -> None:
    mark = tmp_path / "exploded"
    checkpoint.write(run, "last", 1, RunSpec(), TENSORS, {})
    (run / CHECKPOINTS / "last-1.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(Invalid, match=r"checkpoint 'last' .* cannot be read"):
        checkpoint.read(run, "last")
    assert not mark.exists()


def test_a_new_checkpoint_replaces_the_previous_one(run: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.write(run, "last", step, RunSpec(), TENSORS, {})
    checkpoint.write(run, "best", 2, RunSpec(), TENSORS, {})
    assert checkpoint.read(run, "last")[0].step == 3
    assert sorted(path.name for path in (run / CHECKPOINTS).iterdir()) == [
        "best-2.safetensors",
        "best.json",
        "last-2.safetensors",
        "last-3.safetensors",
        "last.json",
        "previous.json",
    ]
    assert checkpoint.read(run, "previous")[0].step == 2
    checkpoint.remove_previous(run)
    assert sorted(path.name for path in (run / CHECKPOINTS).iterdir()) == [
        "best-2.safetensors",
        "best.json",
        "last-3.safetensors",
        "last.json",
    ]


@pytest.mark.parametrize("file", ["last-2.safetensors", "last.json"])
def test_an_interrupted_write_leaves_the_previous_checkpoint(
    run: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """One of its two files is never renamed."""
    checkpoint.write(run, "last", 1, RunSpec(), TENSORS, {})
    rename = os.replace

    def cut_off(source: str, target: str) -> None:
        if Path(target).name == file:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", cut_off)
    with pytest.raises(OSError):
        checkpoint.write(run, "last", 2, RunSpec(), {}, {})
    info, tensors = checkpoint.read(run, "last")
    assert info.step == 1
    assert tensors.keys() == TENSORS.keys()


def test_a_checkpoint_can_be_read_while_newer_ones_replace_it(run: Path) -> None:
    checkpoint.write(run, "last", 0, RunSpec(), TENSORS, {})
    enough, steps = threading.Event(), list[int]()

    def replace() -> None:
        for step in count(1):
            checkpoint.write(run, "last", step, RunSpec(), TENSORS, {})
            if enough.is_set():
                return

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        while len(set(steps)) < 20:
            steps.append(checkpoint.read(run, "last")[0].step)
    finally:
        enough.set()
        writer.join()
    assert steps == sorted(steps)


def test_a_checkpoint_without_its_tensor_file_is_reported(run: Path) -> None:
    checkpoint.write(run, "last", 4, RunSpec(), TENSORS, {})
    (run / CHECKPOINTS / "last-4.safetensors").unlink()
    with pytest.raises(Invalid, match=r"has lost its file last-4\.safetensors"):
        checkpoint.read(run, "last")


def test_saved_is_recorded_after_the_checkpoint_is_complete(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write, encode = checkpoint.write, recorder.encode
    monkeypatch.setattr(checkpoint, "write", lambda *given: (write(*given), order.append("written"))[0])
    monkeypatch.setattr(recorder, "encode", lambda event: (order.append(type(event).__name__), encode(event))[1])
    writing = Recorder(run, RunSpec())
    writing.start(on_command=lambda: None)
    writing.put(PendingSave("last", 9, TENSORS, {}))
    assert writing.close()
    assert order == ["written", "Saved"]
    assert events(run) == [Saved(step=9, kind="last")]
