"""Under torchrun nobody can answer a question: `--trust OWNER` lets a run of another user continue."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.process import torchrun
from epochtop.engine.runs import ownership
from epochtop.engine.runs.ownership import Risk
from tests.support.runs import events_of, write_run

TASK = "/home/eve/train.py:make_task"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--resume train-own-1a2b", "belongs to eve and executes /home/eve/train.py:make_task as you; read it, then add --trust eve"),
        ("--resume train-own-1a2b --trust adam", "add --trust eve"),
        ("--resume train-own-1a2b --trust eve", "there is no file /home/eve/train.py"),
        ("--resume train-own-1a2b --trust=eve", "there is no file /home/eve/train.py"),
        ("--trust eve --epochs 3", "trust: names the owner of a run that continues; add --resume RUN, or leave it out"),
        ("--resume train-own-1a2b --trust eve --epochs 3", "epochs: cannot be changed"),
    ],
)  # fmt: skip
def test_the_owner_must_be_named(
    flags: str, says: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(home, "train-own-1a2b", events_of("stopped"), task=TASK)
    monkeypatch.setattr(ownership, "code_risks", lambda run: [Risk(run, "belongs to eve", "eve")])
    assert torchrun.main(flags.split()) == 2
    assert says in capsys.readouterr().err
