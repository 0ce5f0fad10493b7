"""`epochtop pull` and `--host` on the command line: complete copies that continue after a drop, and text for people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.ownership import check_code, code_owner
from epochtop.engine.runs.paths import CHECKPOINTS, COMMANDS, EVENTS, LOCK
from epochtop.engine.runs.remote import pull as pulling
from epochtop.engine.runs.remote.host import Host
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.engine.runs.remote.pull import pull
from epochtop.tui.cli.main import run
from tests.remote.machines import StandIn
from tests.support.runs import engine_alive, events_of, write_run

RUN = "iris-mlp-0001"
WEIGHTS = os.urandom(3 << 20)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The home folder of the other machine, with a run and its weights."""
    folder = tmp_path / "there"
    copied = write_run(folder, RUN, events_of("stopped"), task="/home/eve/task.py:make", name="night")
    (copied / CHECKPOINTS / "last-1.safetensors").write_bytes(WEIGHTS)
    (copied / CHECKPOINTS / "last.json").write_text("{}")
    (copied / "secret").symlink_to("/etc/passwd")
    (copied / "folder").symlink_to("/etc")
    return folder


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A machine that is reached without a network."""
    machine = StandIn(tmp_path / "box")
    machine.use(monkeypatch)
    return machine


@pytest.fixture
def mirror(box: StandIn, there: Path) -> Iterator[Mirror]:
    with closing(Mirror(Host("box", str(there)))) as connected:
        yield connected


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run that are copied."""
    ours = {"origin.json", LOCK, COMMANDS}
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.name not in ours}


def test_a_copy_continues_after_a_drop_and_is_complete_or_absent(
    box: StandIn, there: Path, mirror: Mirror, home: Path
) -> None:
    home.mkdir()
    dropped: list[int] = []

    def drop_once(here: int, total: int) -> None:
        assert total >= len(WEIGHTS)
        assert not (home / RUN).exists()
        if here > len(WEIGHTS) // 2 and not dropped:
            dropped.append(here)
            box.unplug()
            box.plug()

    copy = pull(mirror, RUN, home, drop_once)
    assert dropped
    assert contents(copy.path) == contents(there / RUN)
    assert copy.received < copy.bytes + (2 << 20), "what was here came again"
    assert not (copy.path / "secret").exists()
    assert summarize(copy.path) == summarize(there / RUN)
    assert {path.name for path in home.iterdir()} == {RUN}
    again = pull(mirror, RUN, home)
    assert (again.received, contents(again.path)) == (0, contents(there / RUN))


def test_an_interrupted_copy_continues_and_a_damaged_one_is_repaired(there: Path, mirror: Mirror, home: Path) -> None:
    aside = home / f".pull-{RUN}" / CHECKPOINTS
    aside.mkdir(parents=True)
    weights = aside / "last-1.safetensors"
    weights.write_bytes(WEIGHTS[: 2 << 20])
    (aside / "left over").write_text("of a checkpoint that is gone")
    copy = pull(mirror, RUN, home)
    assert contents(copy.path) == contents(there / RUN)
    assert copy.received < copy.bytes - (2 << 20) + 1
    (home / RUN).rename(home / f".pull-{RUN}")
    (home / f".pull-{RUN}" / CHECKPOINTS / weights.name).write_bytes(b"\0" + WEIGHTS[1:])
    assert contents(pull(mirror, RUN, home).path) == contents(there / RUN)


def test_a_checkpoint_that_is_replaced_meanwhile_is_copied_again(
    there: Path, mirror: Mirror, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    folder = there / RUN / CHECKPOINTS

    def replace_once(here: int, total: int) -> None:
        if (folder / "last-1.safetensors").exists():
            (folder / "last-1.safetensors").unlink()
            (folder / "last-2.safetensors").write_bytes(WEIGHTS[::-1])
            (folder / "last.json").write_text('{"step": 2}')

    with engine_alive(there / RUN):
        copy = pull(mirror, RUN, home, replace_once)
    assert copy.alive
    assert contents(copy.path) == contents(there / RUN)


def test_only_a_copy_of_the_same_run_is_replaced(there: Path, mirror: Mirror, home: Path) -> None:
    write_run(home, RUN, events_of("finished"))
    before = contents(home / RUN)
    with pytest.raises(Invalid, match=f"{home / RUN} exists and is not a copy of box:{there}/{RUN}"):
        pull(mirror, RUN, home)
    assert contents(home / RUN) == before
    with pytest.raises(Invalid, match="has no run gone-0000 any more"):
        pull(mirror, "gone-0000", home)


@pytest.mark.parametrize("name", ["../outside", "/etc/x", "a/../../x", ".hidden", "x" * 300, 7])
def test_a_file_name_that_leads_elsewhere_ends_the_copy(name: object) -> None:
    with pytest.raises(Invalid, match="invalid file name"):
        pulling._checked([name, 1, 2])


def test_a_copy_counts_as_the_other_machines(mirror: Mirror, home: Path) -> None:
    home.mkdir()
    copy = pull(mirror, RUN, home).path
    assert code_owner(copy, "/home/eve/task.py:make") == "box"
    with pytest.raises(Invalid, match="--trust box"):
        check_code(copy, "/home/eve/task.py:make")
    check_code(copy, "/home/eve/task.py:make", trusted_owner="box")
    (copy / "origin.json").write_text("damaged")
    assert code_owner(copy, "/home/eve/task.py:make") == "another machine"


# --- the command line -----------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    assert run([*arguments]) == status
    output = capsys.readouterr()
    return output.out, output.err


def test_commands_accept_another_machine(
    box: StandIn, there: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ("--host", f"box:{there}")
    (line,) = printed(capsys, "runs", *host)[0].splitlines()[1:]
    assert line.split()[:3] == [RUN, "night", "stopped"]
    (entry,) = json.loads(printed(capsys, "runs", "--json", *host)[0])
    assert entry["path"] == f"box:{there}/{RUN}"
    monkeypatch.setenv("EPOCHTOP_HOME", str(there))
    here: Any = json.loads(printed(capsys, "runs", "--json")[0])[0]
    losses = printed(capsys, "export", RUN)[0]
    monkeypatch.setenv("EPOCHTOP_HOME", str(home))
    assert entry["series"] == here["series"]
    assert printed(capsys, "export", "night", *host)[0] == losses
    assert printed(capsys, "stop", "night", *host)[0] == f"{RUN} is not running: stopped\n"
    output = printed(capsys, "pull", "last", *host)[0].splitlines()
    assert output[0].startswith(f"{RUN}: 3.")
    assert output[1:] == [str(home / RUN)]
    assert (home / RUN / EVENTS).read_bytes() == (there / RUN / EVENTS).read_bytes()


def test_errors_of_the_command_line_are_one_line(
    box: StandIn, there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ("--host", f"box:{there}")
    for arguments, message in (
        (("pull", "last"), "host: name the machine to copy from, such as `epochtop pull --host user@box last`"),
        (("pull", "x", *host), f"there is no run 'x' in box:{there}; list all runs with `epochtop runs`"),
        (host, "the app needs a terminal; `epochtop runs --host` and `epochtop pull` work without one"),
        (
            ("export", "night", "--format", "onnx", *host),
            "format: copy the run with `epochtop pull` first, then export onnx",
        ),
        (("runs", "/tmp", *host), "host: PATH is a path of this machine; leave out one of both"),
    ):
        assert printed(capsys, *arguments, status=2)[1] == f"epochtop: {message}\n"
    monkeypatch.setenv("EPOCHTOP_SSH", "/nowhere/ssh")
    error = printed(capsys, "runs", *host, status=2)[1]
    assert error == "epochtop: cannot start /nowhere/ssh: No such file or directory; install OpenSSH's client\n"
