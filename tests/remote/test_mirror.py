"""A mirror whose machine is reached through a stand-in for ssh: it survives drops, and says why it cannot connect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from epochtop.engine.protocol.commands import Pause, Stop
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.ownership import check_code, code_owner
from epochtop.engine.runs.paths import COMMANDS, EVENTS
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.runs.remote import connection, mirror
from epochtop.engine.runs.remote.connection import Connection, LostConnectionError
from epochtop.engine.runs.remote.folder import SESSION
from epochtop.engine.runs.remote.host import BOOTSTRAP, Host, parse_host
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.engine.runs.writer import send
from epochtop.tui.client.foreground import stop_and_wait
from tests.recording.scripts import old_python
from tests.remote.machines import StandIn, running_sshd
from tests.support.engines import wait_until
from tests.support.runs import engine_alive, events_of, write_run

RUN = "iris-mlp-0001"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mirror, "BACKOFF_S", (0.05,))
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The home folder of the other machine, with a run."""
    folder = tmp_path / "there"
    write_run(folder, RUN, events_of("running"), task="/home/eve/task.py:make")
    return folder


def use(machine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHTOP_SSH", str(machine.command))


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A machine whose shell prints a greeting, and whose Python has no packages."""
    machine = StandIn(tmp_path / "box", before="echo 'Welcome to box!'; printf '\\033[2J\\0epochtop \\n'")
    use(machine, monkeypatch)
    return machine


@pytest.fixture
def mirrored(box: StandIn, there: Path) -> Iterator[Mirror]:
    """A mirror of `there` whose runs are listed."""
    with closing(Mirror(Host("box", str(there)))) as connected:
        connected.wait_until_listed()
        yield connected


def grow(run: Path, text: bytes) -> None:
    with open(run / EVENTS, "ab") as log:
        log.write(text)


def test_a_run_is_followed_and_commanded_across_a_drop(box: StandIn, there: Path, mirrored: Mirror) -> None:
    run, copy = there / RUN, mirrored.folder / RUN
    with engine_alive(run):
        wait_until(lambda: is_alive(copy))
        mirrored.follow(copy)
        mirrored.wait_until_complete(copy)
        wait_until(lambda: (copy / EVENTS).read_bytes() == (run / EVENTS).read_bytes())
        send(copy, Pause(by="ada@laptop:7"))
        wait_until(lambda: (run / COMMANDS).read_bytes() == b'{"type":"Pause","by":"ada@laptop:7"}\n')
        box.unplug()
        wait_until(lambda: "connection to box lost, retrying" in mirrored.problem)
        grow(run, b'{"type":"Noted"}\n')
        with pytest.raises(ConnectionError, match="the command was not sent"):
            send(copy, Stop())
        wait_until(lambda: "Connection refused" in mirrored.problem)
        assert is_alive(copy), "nobody knows that it died"
        box.plug()
        wait_until(lambda: (copy / EVENTS).read_bytes() == (run / EVENTS).read_bytes())
        assert not mirrored.problem
        assert (run / COMMANDS).read_bytes().count(b"\n") == 1
    wait_until(lambda: not is_alive(copy))


def test_runs_that_are_gone_after_a_drop_leave_the_list(box: StandIn, there: Path, mirrored: Mirror) -> None:
    box.unplug()
    wait_until(lambda: mirrored.problem)
    (there / RUN).rename(there / "iris-mlp-0002")
    box.plug()
    wait_until(lambda: [path.name for path in index.run_paths(mirrored.folder)] == ["iris-mlp-0002"])


def test_a_command_that_was_not_confirmed_is_reported(box: StandIn, mirrored: Mirror) -> None:
    os.kill(box.processes[-1], signal.SIGSTOP)
    send(mirrored.folder / RUN, Pause())
    box.unplug()
    wait_until(lambda: mirrored.problem)
    assert mirrored.take_notices() == ["the connection was lost before box confirmed Pause; it may not have arrived"]


def test_a_stop_does_not_wait_for_a_machine_out_of_reach(box: StandIn, there: Path, mirrored: Mirror) -> None:
    with engine_alive(there / RUN):
        wait_until(lambda: is_alive(mirrored.folder / RUN))

        def unplug_after_the_command() -> None:
            wait_until(lambda: (there / RUN / COMMANDS).stat().st_size)
            box.unplug()

        unplugging = threading.Thread(target=unplug_after_the_command)
        unplugging.start()
        with pytest.raises(ConnectionError, match=r"connection to box lost, .*the run may not have stopped"):
            stop_and_wait(mirrored.folder / RUN)
        unplugging.join()


def test_a_home_folder_that_cannot_be_read_is_named(box: StandIn, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with closing(Mirror(Host("box", str(tmp_path / "file")))) as mirrored:
        assert mirrored.take_notices() == [f"box:{tmp_path}/file cannot be read: Not a directory"]


def test_a_machine_that_does_not_answer_is_given_up(
    box: StandIn, there: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection, "END_S", 0.2)
    silent = Connection(Host("box", str(there)), may_ask=False)
    with closing(silent):
        silent.receive()
        os.kill(box.processes[-1], signal.SIGSTOP)
        monkeypatch.setattr(connection, "SILENT_S", 0.1)
        with pytest.raises(LostConnectionError, match=r"no answer for 0\.1 s"):
            _receive_all(silent)
    assert not _is_running(box.processes[-1])
    monkeypatch.setattr(connection, "START_S", 0.1)
    use(StandIn(tmp_path / "asleep", before="exec sleep 1000"), monkeypatch)
    with pytest.raises(Invalid, match=r"no answer for 0\.1 s"):
        Mirror(Host("box"))


def _receive_all(silent: Connection) -> None:
    while True:
        silent.receive()


def test_a_command_that_the_run_does_not_take_is_reported(there: Path, mirrored: Mirror) -> None:
    (there / RUN / COMMANDS).unlink()
    (there / RUN / COMMANDS).mkdir()
    send(mirrored.folder / RUN, Pause())
    notices: list[str] = []
    wait_until(lambda: notices.extend(mirrored.take_notices()) or notices)
    assert notices == ["box cannot take Pause: is a folder"]


def test_a_mirrored_run_is_another_owners(there: Path, mirrored: Mirror) -> None:
    copy = mirrored.folder / RUN
    assert code_owner(copy, "/home/eve/task.py:make") == "box"
    with pytest.raises(Invalid, match="--trust box"):
        check_code(copy, "/home/eve/task.py:make")
    with pytest.raises(Invalid, match=f"there is no run 'x' in box:{there}"):
        index.find_any(mirrored.folder, "x")
    assert mirrored.folder.stat().st_mode & 0o077 == 0


def test_a_mirror_is_removed_with_its_process_or_by_the_next(box: StandIn, there: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "remote"
    left_over = cache / "box-killed"
    left_over.mkdir(parents=True)
    (left_over / SESSION).touch()
    with closing(Mirror(Host("box", str(there)))) as first, closing(Mirror(Host("box", str(there)))) as second:
        assert set(cache.iterdir()) == {first.folder, second.folder}
    assert list(cache.iterdir()) == []
    wait_until(lambda: not any(_is_running(process) for process in box.processes))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_agent_works_in_the_oldest_python(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = old_python()
    if python is None:
        pytest.skip("there is no Python 3.9 or 3.10 on PATH")
    use(StandIn(tmp_path / "box", python=python), monkeypatch)
    with closing(Mirror(Host("box", str(there)))) as old:
        old.wait_until_listed()
        copy = old.folder / RUN
        assert index.summarize(copy) == index.summarize(there / RUN)
        old.follow(copy)
        old.wait_until_complete(copy)
        assert (copy / EVENTS).read_bytes() == (there / RUN / EVENTS).read_bytes()


# --- why there is no connection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("exit 127", "box has no `python3`; install Python 3.9 or later there"),
        ("echo 3.6.8 >&2; exit 78", "box has Python 3.6.8; epochtop needs 3.9 or later there, as `python3`"),
        (
            "echo 'ada@box: Permission denied (publickey).' >&2; exit 255",
            "cannot connect to box: ada@box: Permission denied (publickey).; try `ssh box`",
        ),
        ("exit 3", "cannot start on box (exit status 3); try `ssh box`"),
        ("yes; exit 1", "cannot understand box: its shell printed more than 1 MiB before the first answer"),
    ],
)
def test_an_error_says_what_where_and_what_to_do(
    before: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(StandIn(tmp_path / "box", before=before), monkeypatch)
    with pytest.raises(Invalid) as error:
        Mirror(Host("box"))
    assert error.value.message == message


def test_another_version_is_refused(box: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PROTOCOL", 2)
    with pytest.raises(Invalid, match="box speaks version 1 of the protocol, not 2"):
        Mirror(Host("box"))


def test_a_missing_ssh_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHTOP_SSH", "/nowhere/ssh -p 22")
    with pytest.raises(Invalid, match="cannot start /nowhere/ssh: No such file or directory; install OpenSSH's client"):
        Mirror(Host("box"))


def test_hosts_as_users_write_them() -> None:
    assert parse_host("box") == Host("box")
    assert parse_host("ada@box:/data/runs") == Host("ada@box", "/data/runs")
    assert parse_host("ada@box:~/runs") == Host("ada@box", "~/runs")
    for text in ("", "-oProxyCommand=date", "a b", ":/data", "a\nb"):
        with pytest.raises(Invalid, match="is not a machine"):
            parse_host(text)


def test_only_the_first_connection_may_ask_for_a_password() -> None:
    assert "BatchMode=yes" not in Host("box").command(may_ask=True)
    command = Host("box").command(may_ask=False)
    assert "BatchMode=yes" in command
    assert command[-1].count("'") == 2
    assert not set(command[-1]) & set("!\\\n`$")


# --- a real sshd ---------------------------------------------------------------------------------------------------


def test_a_run_is_followed_and_commanded_through_a_real_sshd(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "sshd"
    keys.mkdir(mode=0o700)
    with running_sshd(keys) as command:
        monkeypatch.setenv("EPOCHTOP_SSH", command)
        with closing(Mirror(Host("box", str(there)))) as real, engine_alive(there / RUN):
            real.wait_until_listed()
            run, copy = there / RUN, real.folder / RUN
            real.follow(copy)
            real.wait_until_complete(copy)
            first = real._connection
            assert first is not None
            first._process.kill()
            wait_until(lambda: real._connection is not first)
            grow(run, b'{"type":"Noted"}\n')
            wait_until(lambda: (copy / EVENTS).read_bytes() == (run / EVENTS).read_bytes())
            wait_until(lambda: not real.problem)
            send(copy, Pause(by="ada"))
            wait_until(lambda: (run / COMMANDS).read_bytes() == b'{"type":"Pause","by":"ada"}\n')
            assert is_alive(copy)


def test_a_module_in_the_folder_of_the_login_does_not_replace_one_of_python(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    source = b"import json; print(json.dumps([1]))"
    done = subprocess.run(
        [sys.executable, "-c", BOOTSTRAP], cwd=tmp_path, input=b"%d\n%s" % (len(source), source), capture_output=True
    )
    assert done.stdout == b"[1]\n", done.stderr
