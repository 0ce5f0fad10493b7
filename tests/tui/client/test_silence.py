"""A run that is alive but records nothing: the screen says so, and why, instead of its last speed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from epochtop.engine.protocol.events import RANK_HANGS, Noted, Telemetry, Warned, encode
from epochtop.engine.runs.paths import EVENTS, RECORD
from epochtop.engine.runs.reader import read_record
from epochtop.tui.cli import train
from epochtop.tui.cli.train import Bar, Lines, Quiet
from epochtop.tui.client import follower, foreground, silence
from epochtop.tui.client.session import Session
from epochtop.tui.screens.status import status
from epochtop.tui.state.run import RunState
from tests.support.engines import wait_until
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, script_record
from tests.support.runs import engine_alive, started, windows, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has taken ten steps."""
    return write_run(tmp_path, "iris-mlp-0001", [started(100), *windows([1.0] * 10)])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "ALLOWED_S", 0.1)


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
            written_at = monotonic()
            with open(run / EVENTS, "ab") as log:
                log.write(b"".join(encode(event) + b"\n" for event in windows([1.0] * 20)[-1:]))
            wait_until(lambda: (viewed.drain(), viewed.following.silent_s <= monotonic() - written_at)[1])
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_silence_is_not_reported_before_three_refreshes_and_two_seconds(run: Path) -> None:
    state = RunState(read_record(run))
    with engine_alive(run), closing(Session(run, state, lambda _: None)) as viewed:
        wait_until(lambda: (viewed.drain(), state.step == 10)[1])
        assert viewed.silence(refresh_s=3600.0) == ""
        wait_until(lambda: viewed.silence(refresh_s=0.01))


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
        monkeypatch.setattr(silence, "HANGING_S", -1.0)
        assert following.cause == "the file system of the run does not answer"


@pytest.mark.parametrize(
    ("silent_s", "cause", "refresh_s", "step_s", "shown"),
    [
        (2.2, "", 0.1, 0.0, False),
        (2.4, "", 0.1, 0.0, True),
        (29.0, "", 0.1, 10.0, False),  # a step takes as long as that
        (33.0, "", 0.1, 10.0, True),
        (2.4, "the disk is full", 0.1, 10.0, True),
    ],
)
def test_a_silence_is_shown_after_three_refreshes_or_steps_and_two_seconds(
    silent_s: float, cause: str, refresh_s: float, step_s: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    text = silence.silence_text(silent_s, cause, refresh_s, step_s)
    assert text == (f"no data for {silent_s:.0f} s{': ' * bool(cause)}{cause}" if shown else "")


def test_telemetry_and_warnings_are_not_progress() -> None:
    """They come from threads of their own, so they go on while training hangs."""
    telemetry = Telemetry(time=0.0, engine_cpu_percent=0.0, engine_memory_bytes=1)
    assert not silence.is_progress([telemetry, Warned(message="m"), Noted(message="n")])
    assert silence.is_progress([telemetry, *windows([1.0])])


def test_the_rank_that_hangs_is_the_cause(run: Path) -> None:
    rank = silence.HangingRank()
    rank.see(Warned(message="rank 1 has kept the other ranks waiting", code=RANK_HANGS))
    rank.see(Warned(message="another"))
    assert rank.message == "rank 1 has kept the other ranks waiting"
    rank.see(windows([1.0])[0])
    assert rank.message == ""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """The run of a script whose recording process has started another one, which is suspended; and that process."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '300']); print(p.pid, flush=True); p.wait()"
    recorder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert recorder.stdout is not None
    pid = int(recorder.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    run = write_run(tmp_path, "train-0001", [SCRIPT_STARTED, logged(0, 1.0, loss=[2.0] * 10)])
    record = msgspec.structs.replace(script_record(), host=os.uname().nodename, pid=recorder.pid)
    (run / RECORD).write_bytes(encode(record))
    yield run, pid
    os.killpg(recorder.pid, signal.SIGKILL)
    recorder.wait()
    recorder.stdout.close()


def test_a_script_of_which_one_process_is_suspended_is_silent(script: tuple[Path, int]) -> None:
    run, pid = script
    state = RunState(read_record(run))
    with engine_alive(run), closing(Session(run, state, lambda _: None)) as viewed:
        wait_until(lambda: (viewed.drain(), state.step == 10)[1])
        wait_until(lambda: "suspended" in viewed.silence(0.1, 3600.0))
        line = status(state, "", 200, viewed.silence(0.1))
    assert line.startswith(" step 9")
    assert "— steps/s  no data for " in line
    assert f"process {pid} is suspended; `kill -CONT {pid}` continues it" in line


def test_the_log_of_another_tool_may_be_silent(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1\n1,2\n")
    state = RunState(script_record())
    with closing(Session(tmp_path / "metrics.csv", state, lambda _: None)) as viewed:
        wait_until(lambda: (viewed.drain(), viewed.following.caught_up and viewed.following.silent_s > 0.5)[1])
        assert viewed.silence(0.0) == ""


# --- on the command line -----------------------------------------------------------------------------------------


def test_a_training_on_the_command_line_says_that_it_records_nothing(
    script: tuple[Path, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "PATIENCE_S", 0.0)
    run, pid = script
    state = RunState(read_record(run))
    for event in (started(100), *windows([1.0] * 10)):
        state.apply(event)
    meter, lines, quiet, bar = silence.SilenceMeter(run), Lines(), Quiet(), Bar()
    wait_until(lambda: meter.text(0.01, 0.0))
    text = meter.text(0.01, 0.0)
    for _ in range(3):  # once, not 20 times a second
        lines.progress(state, text)
        quiet.progress(state, text)
    bar.progress(RunState(), text)
    assert f"process {pid} is suspended" in text
    out, err = capsys.readouterr()
    assert out.count("no data for ") == err.count("no data for ") == 1
    assert f"kill -CONT {pid}" in out
    assert "steps/s" not in out
    meter.see(windows([1.0]))
    assert meter.text(10.0, 0.0) == ""


def test_stop_reports_that_a_suspended_process_does_not_answer(
    script: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pid = script
    monkeypatch.setattr(foreground, "PATIENCE_S", 0.1)
    answers = iter([True] * 8 + [False])
    monkeypatch.setattr(foreground, "is_alive", lambda _: next(answers))
    foreground.stop_and_wait(run)
    err = capsys.readouterr().err
    assert err.count("Stop has not been answered") == 1
    assert f"process {pid} is suspended" in err
