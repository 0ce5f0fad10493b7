"""Commands without an answer are reported once, after five seconds, with the likely cause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from epochtop.engine.protocol.commands import Analyze, AnyCommand, Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.events import Changed, Event, Paused, Warned, encode
from epochtop.engine.runs.paths import RECORD
from epochtop.engine.runs.reader import read_record
from epochtop.tui.client import silence, unanswered
from epochtop.tui.client.session import Session
from epochtop.tui.client.unanswered import ANSWERS, Unanswered
from epochtop.tui.state.run import RunState
from tests.support.engines import wait_until
from tests.support.runs import engine_alive, started, windows, write_run


class Commands:
    """A viewer whose clock a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sent = Unanswered(lambda: self.seconds)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (Pause(), Paused(step=3, by="")),
        (Set(field="learning_rate", value=0.1), Changed(step=3, field="learning_rate", value=0.1)),
        (Save(), Warned(message="the disk is full")),
    ],
    ids=["pause", "set", "save that is refused"],
)
def test_an_answer_in_time_is_all(command: AnyCommand, answer: Event) -> None:
    viewer = Commands()
    viewer.sent.sent(command)
    viewer.seconds = 4.9
    assert viewer.sent.overdue() is None
    viewer.sent.see(answer)
    viewer.seconds = 60.0
    assert viewer.sent.overdue() is None


def test_a_command_without_an_answer_is_reported_once() -> None:
    viewer = Commands()
    viewer.sent.sent(Pause())
    viewer.sent.sent(Stop())
    viewer.sent.see(Warned(message="something else"))
    viewer.seconds = 5.1
    assert isinstance(viewer.sent.overdue(), Pause)
    assert isinstance(viewer.sent.overdue(), Stop)
    assert viewer.sent.overdue() is None


def test_every_command_has_answers() -> None:
    assert set(ANSWERS) == {Pause, Resume, Stop, Save, Set, Analyze}


def test_the_report_names_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "PATIENCE_S", 0.05)
    monkeypatch.setattr(silence, "ALLOWED_S", 0.05)
    run = write_run(tmp_path, "iris-mlp-0001", [started(100), *windows([1.0] * 10)])
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        record = msgspec.structs.replace(read_record(run), host=os.uname().nodename, pid=sleeper.pid)
        (run / RECORD).write_bytes(encode(record))
        sleeper.send_signal(signal.SIGSTOP)
        state = RunState(read_record(run))
        with engine_alive(run), closing(Session(run, state, lambda _: None)) as viewed:
            wait_until(lambda: (viewed.drain(), "suspended" in viewed.following.cause)[1])
            viewed.unanswered.sent(Pause())
            reports: list[str] = []
            wait_until(lambda: reports.append(viewed.overdue()) or reports[-1])
    finally:
        sleeper.kill()
        sleeper.wait()
    assert reports[-1].startswith("Pause has not been answered")
    assert f"process {sleeper.pid} is suspended" in reports[-1]
