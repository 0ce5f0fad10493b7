"""`epochtop run`: options, exit statuses, signals, environments without our packages, and a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.engine.runs.writer import send
from epochtop.tui.cli.run_script import Options, check_command, parse_options
from tests.support.engines import HANGING_S, wait_until
from tests.support.hooked import read_events, series_of

EPOCHTOP = [sys.executable, "-P", "-m", "epochtop", "run"]
PRINTS = "for epoch in range(3): print(f'epoch {epoch} loss: {1 / (epoch + 1):.2f}')"
WAITS = "import time\nprint('ready', flush=True)\ntime.sleep(600)"


def run(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """`epochtop run` without a terminal."""
    return subprocess.run(
        [*EPOCHTOP, *map(str, words)], capture_output=True, text=True, timeout=HANGING_S, check=False, **options
    )  # type: ignore[call-overload, no-any-return]


# --- options ------------------------------------------------------------------------------------------------


def test_everything_after_the_first_word_belongs_to_the_command() -> None:
    words = ["--name", "a b", "--plain", "python", "train.py", "--detach", "--name", "x"]
    expected = Options(command=["python", "train.py", "--detach", "--name", "x"], plain=True, name="a b")
    assert parse_options(words) == expected
    assert parse_options(["--no-parse", "--", "--odd"]) == Options(command=["--odd"], parse=False)
    assert parse_options(["--help"]) is None


@pytest.mark.parametrize("words", [[], ["--plain"], ["--lr", "1"], ["--name"], ["--detach", "--plain", "ls"]])
def test_wrong_options_are_refused(words: list[str]) -> None:
    with pytest.raises(Invalid):
        parse_options(words)


def test_a_command_that_cannot_start_is_refused_in_one_line(tmp_path: Path, home: Path) -> None:
    with pytest.raises(Invalid, match="there is no such program"):
        check_command("no-such-program")
    script = tmp_path / "train.py"
    script.touch()
    with pytest.raises(Invalid, match="did you mean `epochtop run python"):
        check_command(str(script))
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    refused = run("--plain", broken)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "cannot start the command" in refused.stderr
    assert run_paths(home) == []


# --- statuses and output ------------------------------------------------------------------------------------


def test_plain_passes_output_input_and_the_exit_status_on(home: Path) -> None:
    code = "import sys; print(sys.stdin.read()); print('complaint', file=sys.stderr); sys.exit(7)"
    done = run("--plain", "--name", "my run", sys.executable, "-c", code, input="typed")
    assert (done.returncode, done.stdout, done.stderr) == (7, "typed\n", "complaint\n")
    (path,) = run_paths(home)
    assert read_record(path).name == "my run"
    assert read_events(path)[-1]["type"] == "Failed"
    assert set((path / "output.log").read_text().splitlines()) == {"typed", "complaint"}


def test_an_exception_is_the_failure_of_the_run(home: Path) -> None:
    assert run("--plain", sys.executable, "-c", "raise ValueError('bad rate')").returncode == 1
    last = read_events(run_paths(home)[0])[-1]
    assert last["message"] == "ValueError: bad rate"
    assert last["traceback"].startswith("Traceback")


@pytest.mark.parametrize("words", [(), ("--no-parse",)], ids=["parsed", "not parsed"])
def test_printed_figures_become_series(words: tuple[str, ...], home: Path) -> None:
    assert run("--plain", *words, sys.executable, "-c", PRINTS).returncode == 0
    (path,) = run_paths(home)
    events = read_events(path)
    assert series_of(events) == ({} if words else {"loss": [(0, 1.0), (1, 0.5), (2, 0.33)]})
    assert (events[-1]["type"], events[-1]["outcome"], events[-1]["steps"]) == (
        "ScriptEnded",
        "finished",
        0 if words else 3,
    )


def test_an_environment_with_nothing_but_python_gets_hooks(home: Path, tmp_path: Path) -> None:
    """The hooks come from our folder; nothing else of it can be imported, and the user's own sitecustomize runs."""
    venv.create(tmp_path / "venv", symlinks=True)
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins\nbuiltins.customized = True\n")
    code = (
        "import sys, json, epochtop\n"
        "run = epochtop.Run('inner', config={'lr': 0.5})\n"
        "run.log(loss=0.25)\n"
        "try:\n    import msgspec\nexcept ImportError: found = False\nelse: found = True\n"
        "print(json.dumps([customized, found, sys.path[0], len([p for p in sys.path if 'epochtop' in p])]))\n"
    )
    done = run("--plain", tmp_path / "venv" / "bin" / "python", "-c", code, env={**os.environ, "PYTHONPATH": str(own)})
    assert json.loads(done.stdout) == [True, False, "", 0], done.stderr
    (path,) = run_paths(home)
    record = read_record(path)
    assert record.script is not None
    assert (record.name, record.script.config) == ("inner", {"lr": 0.5})
    assert series_of(read_events(path)) == {"loss": [(0, 0.25)]}


def test_an_isolated_interpreter_is_reported(home: Path) -> None:
    assert run("--plain", sys.executable, "-I", "-c", "print(1)").returncode == 0
    notes = [event["message"] for event in read_events(run_paths(home)[0]) if event["type"] == "Noted"]
    assert notes == ["no hooks: python was started with -I"]


# --- detached, stopped, signaled ----------------------------------------------------------------------------


def test_a_detached_command_outlives_its_starter_and_obeys_stop(home: Path) -> None:
    started = run("--detach", sys.executable, "-c", WAITS)
    path = home / started.stdout.strip()
    wait_until(lambda: (path / "output.log").read_bytes() == b"ready\n")
    assert is_alive(path)
    send(path, Stop(by="me@here:1"))
    wait_until(lambda: not is_alive(path))
    last = read_events(path)[-1]
    assert (last["type"], last["outcome"], last["reason"]) == ("ScriptEnded", "stopped", "stopped by me@here:1")


def test_stop_reaches_a_command_that_was_started_as_a_background_job(home: Path) -> None:
    """A shell without job control has its background jobs ignore SIGINT, and everything that they start."""
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", ignoring, *EPOCHTOP, "--detach", sys.executable, "-c", WAITS]
    path = home / subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    wait_until(lambda: (path / "output.log").read_bytes() == b"ready\n")
    send(path, Stop())
    wait_until(lambda: not is_alive(path))
    assert read_events(path)[-1]["outcome"] == "stopped"


@pytest.mark.parametrize(
    ("number", "field", "words"),
    [
        (signal.SIGTERM, "reason", "stopped by SIGTERM"),
        (signal.SIGXCPU, "message", "the command was ended by SIGXCPU"),
    ],
)
def test_signals_reach_the_command(number: signal.Signals, field: str, words: str, home: Path) -> None:
    """A batch system sends SIGXCPU too, and it must not end the process that records."""
    with subprocess.Popen([*EPOCHTOP, "--plain", sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(HANGING_S) == 128 + number
    assert read_events(run_paths(home)[0])[-1][field] == words


def test_a_killed_starter_does_not_affect_the_command(home: Path) -> None:
    with subprocess.Popen([*EPOCHTOP, "--plain", sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    (path,) = run_paths(home)
    assert is_alive(path)
    send(path, Stop())
    wait_until(lambda: not is_alive(path))
