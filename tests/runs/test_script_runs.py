"""Runs that scripts record: their summaries, and whether they are alive where locks tell nothing."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import AnyEvent, Failed, Paused, Warned, encode
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import heartbeat, index, writer
from epochtop.engine.runs.heartbeat import DEAD_S, Heartbeat
from epochtop.engine.runs.paths import EVENTS, HEARTBEAT, LOCK
from epochtop.engine.runs.reader import is_alive, read_record
from tests.support.engines import wait_until
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, logged_at, script_ended, write_script_run
from tests.support.runs import engine_alive

WINDOWS: list[AnyEvent] = [
    SCRIPT_STARTED,
    logged(0, 0.5, lr=[0.1] * 3),
    logged(0, 0.5, loss=[3.0, 2.0, 1.0]),
    logged_at([2], 0.6, val_loss=[1.5]),
    logged(3, 1.0, loss=[0.75]),
]


def test_a_script_is_summarized_by_its_main_series(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", WINDOWS)
    with engine_alive(run):
        summary = index.summarize(run)
    assert (summary.name, summary.state, summary.script, summary.series) == ("resnet lr3", "running", True, "loss")
    assert (summary.steps, summary.final_loss, summary.seconds, summary.dataset) == (4, 0.75, 1.0, "train.py")


@pytest.mark.parametrize(
    ("last", "state", "note"),
    [
        (script_ended(4), "finished", ""),
        (script_ended(4, "stopped", reason="signal SIGTERM"), "stopped", "signal SIGTERM"),
        (Failed(time=1.0, step=4, message="ValueError: x"), "failed", "ValueError: x"),
        (Warned(message="x"), "died", "the script died"),
    ],
)
def test_a_script_that_is_over_is_listed_with_its_end(tmp_path: Path, last: AnyEvent, state: str, note: str) -> None:
    summary = index.summarize(write_script_run(tmp_path, "a-0001", [*WINDOWS, last]))
    assert (summary.state, summary.note, summary.final_loss) == (state, note, 0.75)


def test_the_note_of_a_death_names_the_output_if_there_is_some(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "a-0001", WINDOWS)
    for output, note in (("", "the script died"), ("Killed\n", "the script died; see output.log")):
        (run / "output.log").write_text(output)
        assert index.summarize(run).note == note


def test_a_script_that_continues_is_running_again(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "a-0001", [*WINDOWS, script_ended(4), SCRIPT_STARTED, logged(2, 5.0, loss=[0.5])])
    with engine_alive(run):
        assert index.summarize(run).state == "running"
    assert index.summarize(run).state == "died"


def test_a_script_is_found_and_renamed_by_its_name_but_not_resumed(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "a-0001", WINDOWS)
    assert index.find(tmp_path, "resnet lr3") == run
    index.rename(run, "better")
    assert read_record(run).name == index.summarize(run).name == "better"
    with pytest.raises(Invalid, match="recorded by a script"):
        index.check_can_resume(run)


def test_a_script_that_has_logged_nothing_is_listed(tmp_path: Path) -> None:
    summary = index.summarize(write_script_run(tmp_path, "a-0001", [SCRIPT_STARTED], project="vision"))
    assert (summary.steps, summary.final_loss, summary.series, summary.dataset) == (None, None, "", "vision")


# --- alive --------------------------------------------------------------------------------------------------


def beat(run: Path, age_s: float = 0.0, host: str = "") -> None:
    """A heartbeat that was refreshed `age_s` ago."""
    (run / HEARTBEAT).write_text(f"{host or socket.gethostname()} 7 0\n")
    os.utime(run / HEARTBEAT, (time.time() - age_s, time.time() - age_s))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_script_run(tmp_path, "a-0001", [SCRIPT_STARTED])


def test_where_locks_work_a_free_lock_means_dead_whatever_the_heartbeat(run: Path) -> None:
    beat(run)
    assert not is_alive(run)
    with engine_alive(run):
        assert is_alive(run)
        beat(run, age_s=10 * DEAD_S)
        assert is_alive(run)


@pytest.mark.parametrize("flock", ["without effect", "unsupported"])
def test_where_locks_tell_nothing_a_run_is_alive_as_long_as_its_heart_beats(
    run: Path, monkeypatch: pytest.MonkeyPatch, flock: str
) -> None:
    def fake(_file: object, _operation: int) -> None:
        if flock == "unsupported":
            raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fake)
    assert not is_alive(run)
    beat(run, age_s=DEAD_S - 5)
    assert is_alive(run)
    assert index.summarize(run).state == "running"
    beat(run, age_s=DEAD_S + 1)
    assert not is_alive(run)
    assert index.summarize(run).state == "died"


def test_a_run_of_another_host_is_alive_as_long_as_its_heart_beats(run: Path) -> None:
    beat(run, age_s=DEAD_S - 5, host="elsewhere")
    assert is_alive(run)
    beat(run, age_s=DEAD_S + 1, host="elsewhere")
    assert not is_alive(run)


def test_the_clock_of_the_file_system_counts(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat(run, age_s=100, host="elsewhere")
    monkeypatch.setattr(heartbeat, "_file_system_time", lambda _: time.time() - 95.0)
    assert is_alive(run)


def test_a_run_without_a_lock_file_is_alive_by_its_heartbeat(run: Path) -> None:
    (run / LOCK).unlink()
    assert not is_alive(run)
    beat(run, host="elsewhere")
    assert is_alive(run)


def test_a_heart_beats_until_it_is_closed_even_if_its_file_is_removed(run: Path) -> None:
    heart = Heartbeat(run, interval_s=0.01)
    heart.start()
    (run / HEARTBEAT).unlink()
    owner = [socket.gethostname(), str(os.getpid())]
    wait_until(lambda: (run / HEARTBEAT).exists() and (run / HEARTBEAT).read_text().split()[:2] == owner)
    heart.close()
    assert not (run / HEARTBEAT).exists()


def test_a_beating_run_cannot_be_taken_over(tmp_path: Path) -> None:
    path, lock = writer.create(tmp_path, RunSpec(), {}, 1.0)
    lock.close()
    beat(path, host="elsewhere")
    (path / EVENTS).write_bytes(encode(Paused(step=0)) + b"\n")
    with pytest.raises(Invalid, match="still running"):
        writer.reopen(path)
