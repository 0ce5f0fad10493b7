"""Every way in which a process ends is recorded, or leaves a run that is seen to have died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import AnyEvent, Failed, ScriptEnded
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import is_alive
from tests.recording.scripts import HANGING_S, only_run, recorded, run, series, start
from tests.support.engines import wait_until

BEGIN = """
    import epochtop, os, signal, sys, time
    run = epochtop.Run("ending")
    run.log(loss=1.0)
"""
WRITTEN = """while b'"Logged"' not in open(run.path + "/events.jsonl", "rb").read(): time.sleep(0.01)"""
"""Waits until the value is in the log."""


def end_of(home: Path) -> AnyEvent:
    """The last event of the only run, whose values must be complete."""
    path = only_run(home)
    assert series(path) == {"loss": [(0, 1.0)]}
    assert not is_alive(path)
    return recorded(path)[-1]


@pytest.mark.parametrize(
    ("code", "status", "outcome", "reason"),
    [
        pytest.param("", 0, "finished", "", id="end of the script"),
        pytest.param("sys.exit()", 0, "finished", "", id="exit"),
        pytest.param("run.finish(); run.log(loss=2.0); run.finish()", 0, "finished", "", id="finish, then log"),
        pytest.param("run.finish('stopped')", 0, "stopped", "", id="finish as stopped"),
        pytest.param("os.kill(os.getpid(), signal.SIGTERM); time.sleep(10**6)", -15, "stopped", "signal SIGTERM", id="signal"),
        pytest.param("os.kill(os.getpid(), signal.SIGINT); time.sleep(10**6)", -2, "stopped", "KeyboardInterrupt", id="ctrl-c"),
        pytest.param(
            "import hashlib; os.kill(os.getpid(), signal.SIGHUP)\n"
            "    import threading; hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 31)",
            -1, "stopped", "signal SIGHUP", id="signal soon handled",
        ),
    ],
)  # fmt: skip
def test_an_end_is_recorded(code: str, status: int, outcome: str, reason: str, home: Path) -> None:
    exit_status, _, _ = run(f"{BEGIN}    {code}", home)
    assert exit_status == status
    last = end_of(home)
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.reason, last.steps) == (outcome, reason, 1)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        pytest.param("sys.exit(3)", 3, "the script ended with exit status 3", id="exit status"),
        pytest.param("sys.exit('wrong file')", 1, "the script ended with exit status 1", id="exit with a message"),
        pytest.param("run.finish(2)", 0, "the script ended with exit status 2", id="finish with a status"),
        pytest.param("raise KeyError('lr')", 1, "KeyError: 'lr'", id="exception"),
        pytest.param(
            "open('/no/such')", 1, "FileNotFoundError: [Errno 2] No such file or directory: '/no/such'", id="error"
        ),
    ],
)
def test_a_failure_is_recorded(code: str, status: int, message: str, home: Path) -> None:
    exit_status, _, errors = run(f"{BEGIN}    {code}", home)
    assert exit_status == status
    last = end_of(home)
    assert isinstance(last, Failed)
    assert (last.message, last.step) == (message, 1)
    if "Error" in message:
        assert last.traceback in errors
        assert "line 5" in last.traceback


def test_a_signal_ends_a_process_whose_main_thread_does_not_come_back(home: Path) -> None:
    """A hash of 2³¹ rounds runs for a quarter of an hour without the interpreter lock."""
    code = f"""{BEGIN}
    import hashlib
    print("hashing", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)
    """
    with start(code, home) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hashing\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANGING_S) == -signal.SIGTERM
    last = end_of(home)
    assert isinstance(last, ScriptEnded)
    assert last.reason == "signal SIGTERM"


@pytest.mark.parametrize("before", [True, False], ids=["handler first", "run first"])
def test_the_scripts_own_handler_is_called(before: bool, home: Path) -> None:
    own = """
    import signal, sys
    def handle(number, frame):
        print("saving", number)
        sys.exit(7)
    signal.signal(signal.SIGTERM, handle)
    """
    code = f"{own}{BEGIN}" if before else f"{BEGIN}{own}"
    status, output, _ = run(f"{code}\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(10**6)", home)
    assert (status, output) == (7, "saving 15\n")
    last = end_of(home)
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.reason) == ("stopped", "signal SIGTERM")


def test_an_ignored_signal_stays_ignored(home: Path) -> None:
    code = f"""
    import signal
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    {BEGIN.strip()}
    os.kill(os.getpid(), signal.SIGHUP)
    print("alive")
    """
    assert run(code, home)[:2] == (0, "alive\n")
    last = end_of(home)
    assert isinstance(last, ScriptEnded)
    assert last.outcome == "finished"


def test_the_scripts_own_hooks_are_called(home: Path) -> None:
    code = f"""
    import atexit, sys
    atexit.register(lambda: print("at exit"))
    sys.excepthook = lambda *_: print("hook")
    {BEGIN.strip()}
    raise ValueError
    """
    assert run(code, home)[:2] == (1, "hook\nat exit\n")
    assert isinstance(end_of(home), Failed)


# --- ends that nobody can record --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("os._exit(0)", id="_exit"),
        pytest.param("os.execv(sys.executable, [sys.executable, '-c', 'pass'])", id="exec"),
        pytest.param("os.abort()", id="abort"),
        pytest.param(
            "read, write = os.pipe()\n"
            "    if os.fork() == 0:\n"
            "        os.setsid(); run.log(loss=2.0); time.sleep(0.3); print('child', flush=True)\n"
            "        sys.stdin.read()\n"
            "    os._exit(0)",
            id="daemon",
        ),
    ],
)
def test_a_process_that_ends_without_a_word_is_seen_to_have_died(code: str, home: Path) -> None:
    with start(f"{BEGIN}    {WRITTEN}\n    {code}", home) as process:
        process.wait(HANGING_S)
        assert not is_alive(only_run(home))
        if "fork" in code:
            assert process.stdout is not None
            assert process.stdout.readline() == "child\n"
        assert not is_alive(only_run(home))
        process.communicate()
    assert series(only_run(home)) == {"loss": [(0, 1.0)]}
    assert not isinstance(recorded(only_run(home))[-1], ScriptEnded | Failed)


KILLED = """
    import mmap, os, random, time
    from epochtop import Run
    children = []
    counts = memoryview(mmap.mmap(-1, 8 * 20)).cast("q")
    os.makedirs(os.environ["EPOCHTOP_HOME"])
    for number in range(20):
        pid = os.fork()
        if pid == 0:
            run = Run(str(number))
            value = 0
            while True:
                run.log(value=value)
                value += 1
                counts[number] = value
                time.sleep(0.001)
        children.append(pid)
    home = os.environ["EPOCHTOP_HOME"]
    while len([name for name in os.listdir(home) if name[0] != "."]) < 20:
        time.sleep(0.01)
    random.seed(1)
    for number, pid in enumerate(children):
        time.sleep(random.uniform(0.02, 0.08))
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        print(counts[number])
"""


def test_a_process_that_is_killed_loses_one_refresh_at_most(home: Path) -> None:
    """Windows have no gap, and the last one is as young as a busy machine allows: a value takes a millisecond or longer.

    Half of the processes lose less than four refreshes, however long the machine keeps single ones waiting.
    """
    status, output, _ = run(KILLED, home)
    assert status == 0
    paths = sorted(run_paths(home), key=lambda path: int(path.name.partition("-")[0]))
    assert len(paths) == 20
    lost = []
    for path, count in zip(paths, map(int, output.split()), strict=True):
        assert not is_alive(path)
        values = series(path).get("value", [])
        assert values == [(step, step) for step in range(len(values))]
        assert len(values) <= count + 1
        lost.append(count - len(values))
    assert max(lost) < 5_000
    assert sorted(lost)[9] < 400


def test_the_heartbeat_moves_while_the_process_lives(home: Path) -> None:
    code = f"""
    from epochtop.recording import directory
    directory.HEARTBEAT_S = 0.01
    {BEGIN.strip()}
    sys.stdin.read()
    """
    with start(code, home) as process:
        wait_until(lambda: run_paths(home))
        beat = only_run(home) / "heartbeat"
        first = beat.stat().st_mtime_ns
        wait_until(lambda: beat.stat().st_mtime_ns > first)
        host, pid, started_at = beat.read_text().split()
        assert (host, int(pid)) == (os.uname().nodename, process.pid)
        assert abs(float(started_at) - time.time()) < 100
        process.kill()


# --- how long the end takes --------------------------------------------------------------------------------------


HANGS = """
    from epochtop.recording import directory, writer
    from epochtop.recording.later import control
    directory.HEARTBEAT_S = writer.LOOK_S = 0.0
    from _thread import get_ident
    writer.DEVICE_S = 10**6
    stuck, main, call = [], get_ident(), sys.argv[1]
    owner = control.Inbox if call == "read" else os
    real = getattr(owner, call)
    def hang(*arguments):
        if get_ident() == main:
            return real(*arguments)
        stuck.append(1)
        time.sleep(10**6)
"""


@pytest.mark.parametrize("call", ["write", "utime", "read", "fstat"])
def test_a_disk_that_hangs_does_not_hold_up_the_end_of_the_script(call: str, home: Path) -> None:
    """Whatever the writer asks of it: to take values, to refresh the heartbeat, to give commands, to find the folder."""
    code = f"""{BEGIN}{HANGS}
    {WRITTEN}
    setattr(owner, call, hang)
    run.log(loss=2.0)
    while not stuck: time.sleep(0.001)
    """
    status, _, errors = run(code, home, call)
    assert status == 0
    assert "did not take the last values in time" in errors


# --- other processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables", [{"RANK": "1"}, {"SLURM_PROCID": "3"}, {"OMPI_COMM_WORLD_RANK": "2"}, {"LOCAL_RANK": "1"}], ids=str
)
def test_other_ranks_record_nothing(variables: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from epochtop import Run

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Run("rank") as silent:
        silent.log(loss=1.0)
        silent.summary["x"] = 1
        assert silent.setting("lr", 0.5) == 0.5
        assert (silent.path, silent.id, silent.step, silent.stopping) == (None, "", 0, False)
    assert not home.exists()
    with Run("rank", every_rank=True) as loud:
        loud.log(loss=1.0)
    assert series(only_run(home)) == {"loss": [(0, 1.0)]}


def test_rank_0_records(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from epochtop import Run

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    Run("rank").finish()
    assert only_run(home)


FORKED = """
    import multiprocessing, os, signal, time
    from epochtop import Run
    run = Run("parent")
    run.log(loss=1.0)
    logged, write = os.pipe()

    def work():
        run.log(loss=2.0)
        run.summary["x"] = 1
        run.finish()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with Run("child") as own:
            own.log(loss=3.0)
        os.write(write, b"x")
        time.sleep(10**6)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    os.read(logged, 1)
    process.terminate()
    process.join()
    assert process.exitcode in (-15,), process.exitcode
    run.log(loss=4.0)
"""


def test_a_forked_process_does_not_touch_the_run_of_its_parent(home: Path) -> None:
    status, _, errors = run(FORKED, home)
    assert (status, errors) == (0, "")
    names = {path.name.partition("-")[0]: path for path in run_paths(home)}
    assert series(names["parent"]) == {"loss": [(0, 1.0), (1, 4.0)]}
    assert series(names["child"]) == {"loss": [(0, 3.0)]}


def test_a_forked_process_can_import_what_a_writer_was_importing(home: Path, tmp_path: Path) -> None:
    """The lock of a module that a thread of the parent imports would never be released in the child."""
    (tmp_path / "slow_module.py").write_text("import time; time.sleep(0.3)")
    code = """
        import os, sys, time, epochtop
        sys.path.insert(0, sys.argv[1])
        run = epochtop.Run("forking")
        run.on_command("Analyze", lambda command: __import__("slow_module"))
        with open(os.path.join(run.path, "commands.jsonl"), "a") as commands:
            commands.write('{"type": "Analyze"}\\n')
        while "slow_module" not in sys.modules: time.sleep(0.001)
        child = os.fork()
        if child == 0:
            signal.alarm(200)
            import slow_module
            with epochtop.Run("child") as own:
                own.log(loss=3.0)
            sys.exit()
        sys.exit(os.waitpid(child, 0)[1] != 0)
    """
    status, _, errors = run(f"import signal; signal.alarm(200)\n{textwrap.dedent(code)}", home, str(tmp_path))
    assert (status, errors) == (0, "")
    (child,) = (path for path in run_paths(home) if path.name.startswith("child"))
    assert series(child) == {"loss": [(0, 3.0)]}


def test_a_spawned_process_that_imports_the_script_again_records_nothing(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, epochtop\n"
        "run = epochtop.Run('spawning')\n"
        "run.log(loss=1.0)\n"
        "def work():\n"
        "    run.log(loss=2.0)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    assert process.exitcode == 0\n"
    )
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, str(script)], check=True, env=os.environ | {"PYTHONPATH": root}, timeout=HANGING_S)
    assert series(only_run(home)) == {"loss": [(0, 1.0)]}
