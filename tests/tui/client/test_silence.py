"""A run that is alive but records nothing: the screen says so, and why, instead of its last speed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from epochtop.engine.protocol.events import encode
from epochtop.engine.runs.paths import EVENTS, RECORD
from epochtop.engine.runs.reader import read_record
from epochtop.tui.client import follower, session, silence
from epochtop.tui.client.session import Session
from epochtop.tui.screens.status import status
from epochtop.tui.state.run import RunState
from tests.support.engines import wait_until
from tests.support.runs import engine_alive, started, windows, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has taken ten steps."""
    return write_run(tmp_path, "iris-mlp-0001", [started(100), *windows([1.0] * 10)])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "ALLOWED_S", 0.1)
    monkeypatch.setattr(session, "ALLOWED_S", 0.1)


def change_record(run: Path, **changes: object) -> None:
    """Change fields of run.json."""
    (run / RECORD).write_bytes(encode(msgspec.structs.replace(read_record(run), **changes)))


def test_the_screen_says_that_a_suspended_engine_records_nothing(run: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        change_record(run, host=os.uname().nodename, pid=sleeper.pid)
        state = RunState(read_record(run))
        with engine_alive(run), closing(Session(run, state, lambda _: None)) as viewed:
            wait_until(lambda: (viewed.drain(), state.step == 10)[1])
            sleeper.send_signal(signal.SIGSTOP)
            wait_until(lambda: "suspended" in viewed.silence(0.1))
            line = status(state, "", 200, viewed.silence(0.1))
            assert "no data for " in line
            assert f"kill -CONT {sleeper.pid}" in line
            assert "— steps/s" in line
            sleeper.send_signal(signal.SIGCONT)
            wait_until(lambda: "suspended" not in viewed.silence(0.1))
            with open(run / EVENTS, "ab") as log:
                log.write(b"".join(encode(event) + b"\n" for event in windows([1.0] * 20)[-1:]))
            wait_until(lambda: (viewed.drain(), viewed.following.silent_s < 0.3)[1])
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_silence_is_not_reported_before_three_refreshes_and_two_seconds(run: Path) -> None:
    state = RunState(read_record(run))
    with engine_alive(run), closing(Session(run, state, lambda _: None)) as viewed:
        wait_until(lambda: (viewed.drain(), state.step == 10)[1])
        assert viewed.silence(refresh_s=3600.0) == ""
        wait_until(lambda: viewed.silence(refresh_s=0.01))
    assert (silence.ALLOWED_S, silence.HANGING_S) == (2.0, 5.0)


def test_a_full_disk_and_another_host_are_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_record(run, host="node7", pid=1)
    assert silence.likely_cause(run) == "it runs on node7, which may be out of reach"
    facts = os.statvfs(run)
    full = os.statvfs_result((*facts[:4], 0, *facts[5:]))  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert silence.likely_cause(run) == f"the disk of {run.parent} is full"
    (run / RECORD).unlink()
    assert silence.likely_cause(run) == "its folder cannot be read"


def test_a_file_system_that_hangs_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine_alive(run), closing(follower.Following(run)) as following:
        wait_until(lambda: following.next_batch())
        monkeypatch.setattr(follower, "HANGING_S", -1.0)
        assert following.cause == "the file system of the run does not answer"
