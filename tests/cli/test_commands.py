"""Every command as a process without a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epochtop.engine.protocol.events import Saved
from epochtop.engine.runs import index
from epochtop.engine.runs.reader import is_alive, read_record
from tests.support.engines import HANGING_S, events, finished, losses
from tests.support.processes import prefork
from tests.support.runs import events_of, write_run
from tests.support.ui import commands
from tests.support.ui.commands import Command

KEYS = {
    "run", "outcome", "device", "steps", "epochs", "seconds", "steps_per_second", "final_loss", "test_loss",
    "test_metric", "device_reads", "waited_seconds", "parameters", "planned_memory_bytes", "peak_memory_bytes",
}  # fmt: skip
QUICK = ("--threads", "1", "--device", "cpu", "--epochs", "300")
LONG = ("--threads", "1", "--device", "cpu", "--epochs", "100000000")


def command(*arguments: str) -> list[str]:
    """A command in a new interpreter."""
    prefork.address()  # its engines are forked
    return [*prefork.EPOCHTOP, *arguments]


def started(*arguments: str) -> Command:
    """A command whose output is a text."""
    prefork.address()
    return Command(*arguments, stdout=subprocess.PIPE, text=True)


def epochtop(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    prefork.address()
    return commands.run(*arguments, timeout=HANGING_S)


def started_run(process: subprocess.Popen[str], home: Path) -> Path:
    """The run of a foreground training, once it records."""
    end = time.monotonic() + HANGING_S
    while time.monotonic() < end:
        for run in index.run_paths(home):
            if len(events(run)) > 2:
                return run
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("no run began")


def test_training_prints_plain_lines_and_the_verdict(home: Path) -> None:
    done = epochtop("train", *QUICK)
    assert done.returncode == 0
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"run {index.run_paths(home)[0].name}")
    assert lines[-1].startswith("finished: 300 steps in ")
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_json_is_one_object_with_the_documented_keys(home: Path) -> None:
    done = epochtop("train", "--json", *QUICK)
    result: dict[str, Any] = json.loads(done.stdout)
    assert set(result) == KEYS
    end = finished(home / result["run"])
    assert (result["outcome"], result["steps"], result["parameters"]) == ("finished", 300, 83)
    assert result["final_loss"] == end.final_loss
    assert result["device_reads"] == end.device_reads


def test_the_app_without_a_terminal_says_so_and_trains(home: Path) -> None:
    done = epochtop("--start", *QUICK)
    assert done.returncode == 0
    assert "no terminal" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("finished: 300 steps")


def test_a_detached_run_continues_and_is_stopped_by_its_name(home: Path) -> None:
    done = epochtop("train", "--detach", "--name", "far away", *LONG)
    run = home / done.stdout.strip()
    assert is_alive(run)
    stopped = epochtop("stop", "far away")
    assert stopped.returncode == 0
    assert "stopped" in stopped.stdout
    assert not is_alive(run)
    assert finished(run).outcome == "stopped"
    assert "not running" in epochtop("stop", "last").stdout


def test_ctrl_c_stops_cleanly_and_saves(home: Path) -> None:
    with subprocess.Popen(
        command("train", *LONG), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        run = started_run(process, home)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=HANGING_S)
    assert process.returncode == 0
    assert "stopped: " in output
    assert {event.kind for event in events(run) if isinstance(event, Saved)} == {"last", "best"}


def test_a_killed_engine_is_reported_with_its_signal(home: Path) -> None:
    with started("train", *LONG) as process:
        run = started_run(process, home)
        os.kill(read_record(run).pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=HANGING_S)
    assert process.returncode == 1
    assert "SIGKILL" in output.splitlines()[-1]
    assert index.summarize(run).state == "died"


def test_a_run_outlives_the_command_that_shows_it(home: Path) -> None:
    with started("train", *LONG) as process:
        run = started_run(process, home)
        process.kill()
    assert is_alive(run)
    epochtop("stop", run.name)


def test_the_summary_shows_the_problem_and_why(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "ages.csv"
    file.write_text(",a,age\n" + "".join(f"{row},{row % 7},{18 + 7 * row % 62}\n" for row in range(90)))
    done = epochtop("train", "--dataset", f"csv:{file}", "--target", "age", "--device", "cpu", "--summary")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "problem: regression" in lines
    assert any("'age': 62 distinct whole numbers in 90 rows make this a regression" in line for line in lines)
    assert any("unnamed column" in line and "left out" in line for line in lines)
    assert not home.exists()


def test_a_diverged_run_exits_with_3_and_advice(home: Path) -> None:
    done = epochtop("train", *QUICK, "--learning-rate", "3", "--momentum", "0.98", "--weight-decay", "0.5")
    assert done.returncode == 3
    assert "lower the learning rate" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--dataset", "mnist1"), ("dataset", "iris")),
        (("train", "--device", "tpu"), ("device", "auto, cpu")),
        (("train", "--device", "cuda:99"), ("device", "cuda:99")),
        (("train", "--learning-rate", "-1"), ("learning_rate", "above 0")),
        (("train", "--learning-rate", "0"), ("learning_rate", "above 0")),
        (("train", "--epochs", "0"), ("epochs", "from 1")),
        (("train", "--hidden", "0"), ("hidden", "from 1")),
        (("train", "--hidden", "1000000000"), ("hidden", "GiB", "free")),
        (("train", "--dataset", "csv:nowhere.csv"), ("no file", "nowhere.csv")),
        (("train", "--momentum", "0.9", "--optimizer", "adam"), ("momentum", "sgd")),
        (("train", "--target", "y"), ("target", "iris")),
        (("--start", "--epochs", "many"), ("epochs", "whole number")),
        (("attach", "nothing"), ("no runs",)),
        (("export", "last"), ("no runs",)),
        (("stop", "last"), ("no runs",)),
        (("fly",), ("fly", "train, run, runs")),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    home: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = epochtop(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 or arguments[0] == "--start"
    assert all(word in done.stderr for word in words)
    assert not list(home.glob("*"))


def test_errors_that_cannot_be_written_leave_the_exit_status() -> None:
    with Path("/dev/full").open("w") as full:
        assert commands.run("fly", stderr=full, timeout=HANGING_S).returncode == 2


def test_a_home_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHTOP_HOME", "/dev/null/runs")
    done = epochtop("train", *QUICK)
    assert done.returncode == 2
    assert "/dev/null/runs" in done.stderr
    assert "EPOCHTOP_HOME" in done.stderr


def test_a_run_is_found_by_prefix_and_never_by_a_guess(home: Path) -> None:
    write_run(home, "iris-mlp-11c0", events_of("finished"))
    write_run(home, "iris-mlp-22d1", events_of("finished"))
    assert epochtop("export", "iris-mlp-1").returncode == 0
    unclear = epochtop("export", "iris")
    assert unclear.returncode == 2
    assert "iris-mlp-11c0" in unclear.stderr
    assert "iris-mlp-22d1" in unclear.stderr
    assert epochtop("export", "wine").returncode == 2


def test_exported_losses_are_the_recorded_ones_bit_for_bit(home: Path) -> None:
    epochtop("train", "--name", "mine", *QUICK)
    rows = epochtop("export", "mine", "--format", "csv").stdout.splitlines()
    assert rows[0] == "step,loss"
    steps, values = zip(*(row.split(",") for row in rows[1:]), strict=True)
    assert [int(step) for step in steps] == list(range(300))
    recorded = losses(index.find(home, "mine"))
    assert np.array(values, dtype=np.float32).tobytes() == recorded.tobytes()
    lines = [json.loads(line) for line in epochtop("export", "mine", "--format", "jsonl").stdout.splitlines()]
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx(recorded.tolist())
    assert lines[-1]["test_loss"] is not None


def test_a_reader_that_has_enough_is_not_an_error(home: Path) -> None:
    write_run(home, "iris-mlp-11c0", events_of("finished"))
    with subprocess.Popen(command("export", "last"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"step,loss\n"
        process.stdout.close()
        assert process.wait(HANGING_S) == 0
        assert process.stderr is not None
        assert not process.stderr.read()


def test_a_corrupt_line_is_named_and_the_rest_exported(home: Path) -> None:
    run = write_run(home, "iris-mlp-11c0", events_of("finished"))
    log = (run / "events.jsonl").read_bytes().split(b"\n")
    log.insert(3, b"{not json")
    (run / "events.jsonl").write_bytes(b"\n".join(log))
    done = epochtop("export", "last")
    assert done.returncode == 0
    assert "line 4" in done.stderr
    assert len(done.stdout.splitlines()) == 20_001


def test_runs_are_listed_as_a_table_and_as_json(home: Path) -> None:
    assert "no runs" in epochtop("runs").stdout
    for state in ("finished", "diverged", "died", "failed"):
        write_run(home, f"iris-{state}", events_of(state), name=f"my {state}")
    table = epochtop("runs").stdout
    listed = json.loads(epochtop("runs", "--json").stdout)
    assert {run["state"] for run in listed} == {"finished", "diverged", "died", "failed"}
    assert all(run["id"] in table and run["name"] in table for run in listed)


def test_hardware_version_and_help_answer(home: Path) -> None:
    assert json.loads(epochtop("hardware", "--json").stdout)
    assert "CPU" in epochtop("hardware").stdout
    assert epochtop("--version").stdout.startswith("epochtop 0.")
    assert "Examples:" in epochtop("--help").stdout
    for name in ("train", "runs", "attach", "stop", "export", "hardware"):
        done = epochtop(name, "--help")
        assert done.returncode == 0
        assert f"epochtop {name}" in done.stdout
    assert "--learning-rate" in epochtop("train", "--help").stdout
