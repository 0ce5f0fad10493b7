"""A disk that refuses the log, or a folder that disappears, never disturbs the script; values are written when possible."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import DISK_SPACE, ScriptEnded, Warned
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.recording import log, writer
from epochtop.recording.run import Run
from tests.recording.scripts import only_run, recorded, run, series
from tests.support.engines import wait_until


class Disk:
    """`os.write`, which refuses `events.jsonl` while the disk is full."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        assert run.path is not None
        self._write, self.full, self.refusals = os.write, False, 0
        self._log = (Path(run.path) / "events.jsonl").stat()
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, content: bytes) -> int:
        if self.full and os.path.samestat(os.fstat(descriptor), self._log):
            self.refusals += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(descriptor, content)


def test_a_full_disk_loses_nothing_once_there_is_space(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run() as recording:
        recording.log(loss=0.0)
        disk = Disk(recording, monkeypatch)
        disk.full = True
        for step in range(1, 1000):
            recording.log(loss=float(step))
        wait_until(lambda: disk.refusals > 1)
        disk.full = False
        recording.log(loss=1000.0)
        wait_until(lambda: len(series(only_run(home)).get("loss", ())) == 1001)
    assert series(only_run(home)) == {"loss": [(step, float(step)) for step in range(1001)]}
    assert capsys.readouterr().err == (
        "epochtop: No space left on device; values stay in memory until there is space\n"
    )


@pytest.mark.parametrize(
    ("length", "first"), [(1000, b"a" * 1000), (40_000, b"a" * 10)], ids=["fits into the reserve", "does not fit"]
)
def test_the_last_line_cuts_no_line_off_that_the_reserve_has_room_for(
    length: int, first: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has room for ten bytes, the reserve for the last line and a short one."""
    write, room = os.write, 10

    def write_while_there_is_room(descriptor: int, content: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, content[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", write_while_there_is_room)
    events = log.EventLog(tmp_path, lambda _: None, reserve=False)
    for line in (b"a" * length, b"b" * 40_000, b"last"):
        events.append(line + b"\n")
    assert (tmp_path / "events.jsonl").read_bytes() == b"a" * 10
    room = log.RESERVE_BYTES
    assert events.write_last(b"last\n")
    assert events.close()
    assert (tmp_path / "events.jsonl").read_bytes() == first + b"\nlast\n"


def test_memory_is_bounded_and_what_does_not_fit_is_counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "BACKLOG_BYTES", 2000)
    with Run() as recording:
        disk = Disk(recording, monkeypatch)
        disk.full = True
        for step in range(500):
            recording.log(loss=float(step))
        wait_until(lambda: recording._writer._numbering.next == 500)  # type: ignore[union-attr]
        for step in range(500, 800):
            recording.log(loss=float(step), other=1.0)
        wait_until(lambda: recording._writer.dropped >= 600)  # type: ignore[union-attr]
        disk.full = False
        wait_until(lambda: recording._writer._log.error is None)  # type: ignore[union-attr]
        recording.log(loss=800.0)
    path = only_run(home)
    kept = series(path)
    last = recorded(path)[-1]
    assert isinstance(last, ScriptEnded)
    assert last.dropped >= 600
    assert sum(map(len, kept.values())) + last.dropped == 500 + 600 + 1
    assert kept["loss"][-1] == (800, 800.0)
    warnings = [event for event in recorded(path) if isinstance(event, Warned)]
    assert [warning.code for warning in warnings] == [DISK_SPACE]
    assert str(last.dropped) in warnings[0].message


def test_a_queue_that_is_never_emptied_is_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from epochtop.recording import run as run_module

    monkeypatch.setattr(run_module, "QUEUE_ENTRIES", 50)
    with Run() as recording:
        assert recording._writer is not None
        with recording._writer._working:  # the thread that empties the queue waits for it
            for step in range(80):
                recording.log(loss=float(step))
    last = recorded(only_run(home))[-1]
    assert isinstance(last, ScriptEnded)
    assert len(series(only_run(home))["loss"]) + last.dropped == 80
    assert last.dropped >= 20


QUOTA = """
    import resource, time, epochtop
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = epochtop.Run("quota")
    resource.setrlimit(resource.RLIMIT_FSIZE, (66_000, hard))
    for step in range(14_000):
        run.log(value=float(step % 1000))
        if step % 1000 == 0:
            time.sleep(0.11)
    while run._writer._log.error is None:
        time.sleep(0.01)
    if {raised}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        run.log(value=1.0)
"""


@pytest.mark.parametrize("raised", [True, False], ids=["raised in time", "never raised"])
def test_an_exceeded_quota_does_not_stop_the_script(raised: bool, home: Path) -> None:
    """The kernel limits the size of files to 66 kB."""
    code = QUOTA.format(raised=raised)
    status, _, errors = run(code, home)
    assert status == 0
    assert "File too large; values stay in memory" in errors
    values = series(only_run(home))["value"]
    if raised:
        assert values == [*((step, step % 1000) for step in range(14_000)), (14_000, 1.0)]
        assert isinstance(recorded(only_run(home))[-1], ScriptEnded)
    else:
        assert values == [(step, step % 1000) for step in range(len(values))]
        assert "the disk refused the last values of the run" in errors


def test_a_deleted_folder_is_reported_and_filled_when_it_is_there_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writer, "LOOK_S", 0.0)
    with Run("lost") as recording:
        recording.log(loss=1.0)
        path = only_run(home)
        wait_until(lambda: series(path))
        shutil.rmtree(path)
        wait_until(lambda: recording._writer._is_removed)  # type: ignore[union-attr]
        recording.log(loss=2.0)
        wait_until(lambda: recording._writer._numbering.next == 2)  # type: ignore[union-attr]
        path.mkdir()
        wait_until(lambda: not recording._writer._is_removed)  # type: ignore[union-attr]
        assert is_alive(path)
        assert read_record(path).name == "lost"
        recording.log(loss=3.0)
    assert series(path) == {"loss": [(1, 2.0), (2, 3.0)]}
    assert capsys.readouterr().err.count("was deleted") == 1


def test_a_folder_that_stays_deleted_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOOK_S", 0.0)
    with Run("lost") as recording:
        shutil.rmtree(only_run(home))
        wait_until(lambda: recording._writer._is_removed)  # type: ignore[union-attr]
        recording.log(loss=2.0)
    assert list(home.iterdir()) == []
