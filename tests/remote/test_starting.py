"""Runs that are started and resumed from here by the epochtop of another machine."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from textual.message import Message

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.engine.runs.remote.host import Host
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.engine.runs.writer import send
from epochtop.remote.starting import Starts
from epochtop.tui.cli.flags import parse_options, spec_flags, spec_of
from epochtop.tui.client.messages import RunRefused, RunStarted
from epochtop.tui.client.remote.starter import RemoteStarter, arguments_of
from tests.remote.machines import StandIn
from tests.support.engines import wait_until


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden": (), "learning_rate": 3e-7, "name": "a b"},
        {"dataset": "digits", "model": "cnn", "learning_rate": 0.1, "dropout": 0.0},
        {"dataset": "digits", "model": "mlp", "hidden": (10, 5), "epochs": 200},
    ],
)
def test_flags_mean_the_same_spec_there(fields: dict[str, Any]) -> None:
    spec = RunSpec(**fields)
    arguments = arguments_of(spec)
    assert spec_of(parse_options(spec_flags("Train", "t", []), "train", arguments), arguments) == spec


def test_what_a_preset_turns_on_cannot_be_turned_off() -> None:
    with pytest.raises(Invalid, match="nesterov"):
        arguments_of(RunSpec(dataset="cifar10", model="resnet", nesterov=False))


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "epochtop"
    program.write_text('#!/bin/sh\necho starting torch >&2\necho "epochtop: no run $2" >&2\nexit 2\n')
    program.chmod(0o755)
    starts, answers = Starts(str(program), str(tmp_path)), list[dict[str, Any]]()
    starts.begin(1, ["resume", "x"])
    starts.begin(2, ["pull", "x"])
    Starts("", str(tmp_path)).begin(3, ["train"])
    wait_until(lambda: answers.extend(starts.answers()) or len(answers) == 2)
    errors = {answer["number"]: answer["error"] for answer in answers}
    assert errors == {1: "no run x", 2: "it cannot start runs"}


def test_runs_are_started_and_logs_opened_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, box = tmp_path / "there", StandIn(tmp_path / "box")
    there.mkdir()
    program = tmp_path / "box" / "bin" / "epochtop"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m epochtop "$@"\n')
    program.chmod(0o755)
    box.use(monkeypatch)
    posted: list[Message] = []
    with closing(Mirror(Host("box", str(there)))) as mirror:
        assert mirror.program == str(program)
        starter = RemoteStarter(posted.append, mirror)
        starter.begin(RunSpec(epochs=10**7, name="far", threads=1, device="cpu", executor="eager"), there)
        wait_until(lambda: posted)
        started = posted.pop()
        assert isinstance(started, RunStarted)
        run, copy = there / started.run.name, started.run
        assert copy.parent == mirror.folder
        assert read_record(copy).spec.name == "far"
        starter.resume(copy)
        wait_until(lambda: posted)
        refused = posted.pop()
        assert isinstance(refused, RunRefused)
        assert "is still running" in refused.refused.message
        (tmp_path / "log.csv").write_text("epoch,loss\n0,0.5\n1,0.25\n")
        starter.open_logs(str(tmp_path / "log.csv"))
        wait_until(lambda: [path.name for path in mirror.opened_paths()] == ["log.csv"])
        with pytest.raises(Invalid, match="there is no log in"):
            starter.open_logs(str(tmp_path / "box"))
        send(copy, Stop(by="ada"))
        wait_until(lambda: not is_alive(run))
    assert summarize(run).state == "stopped"
