"""A run with a custom task is resumed with the code it was started with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import TASK_CHANGED, Failed, Noted
from epochtop.engine.protocol.requests import Accepted, Continue, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import TASK
from epochtop.engine.runs.reader import read_task_record
from epochtop.engine.runs.writer import send
from tests.support.engines import Engine, Watch, events, finished, losses
from tests.support.fakes.owners import OTHER, as_root, give_away

TASK_FILE = """\
import time
import torch
from pathlib import Path
from torch import nn
from epochtop import Task

class Model(nn.Linear):
    def forward(self, x):
        if Path("{slow}").exists():
            time.sleep(0.05)
        return super().forward(x)

def make_task():
    torch.manual_seed(3)
    x = torch.randn(32, 2)
    return Task(Model(2, 2), (x, (x[:, 0] > 0).long()))
"""
"""Its steps take long while the file `slow` exists, so that a run can be interrupted before its end."""
QUICK = {"device": "cpu", "threads": 1, "refresh_ms": 10, "executor": "eager", "eval_every": 0, "learning_rate": 0.001}
STEPS = 400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(TASK_FILE.replace("{slow}", str(tmp_path / "slow")))
    return path


def spec_of(file: Path, **fields: object) -> RunSpec:
    return RunSpec(task=f"{file}:make_task", **(QUICK | {"epochs": STEPS} | fields))  # type: ignore[arg-type]


def interrupted(file: Path, home: Path, **fields: object) -> Path:
    """A run that was stopped after some steps."""
    spec, slow = spec_of(file, **fields), file.with_name("slow")
    slow.touch()
    with Engine() as engine:
        run = engine.train(spec, home)
        Watch(run).until_step(5)
        send(run, Stop())
        engine.wait()
    slow.unlink()
    assert 0 < finished(run).steps < spec.epochs
    return run


def resume(run: Path, **options: object) -> None:
    with Engine() as engine:
        reply = engine.ask(Continue(run=str(run), **options))  # type: ignore[arg-type]
        assert isinstance(reply, Accepted), reply
        engine.wait()


def notes(run: Path) -> list[str]:
    return [event.message for event in events(run) if isinstance(event, Noted) and event.code == TASK_CHANGED]


def test_a_resumed_run_continues_with_the_code_it_was_started_with(file: Path, home: Path) -> None:
    with Engine() as engine:
        straight = engine.train(spec_of(file), home)
        engine.wait()
    run = interrupted(file, home)
    file.write_text(file.read_text().replace("x[:, 0] > 0", "x[:, 1] < 0"))
    resume(run)
    assert np.array_equal(losses(run), losses(straight))
    assert notes(run) == ["own.py has changed since the run started; the run's stored copy is used"]
    assert notes(straight) == []


def test_edited_files_are_used_on_request_and_stored(file: Path, home: Path) -> None:
    run = interrupted(file, home)
    edited = file.read_text().replace("x[:, 0] > 0", "x[:, 1] < 0")
    file.write_text(edited)
    before = len(losses(run))
    resume(run, edited_task=True)
    assert notes(run) == ["own.py has changed since the run started; the files are used as they are now"]
    assert losses(run)[before] > losses(run)[before - 1] + 0.1  # the labels are others
    record = read_task_record(run)
    assert record is not None
    assert record.sources[0].text == edited


def test_a_run_of_an_earlier_version_uses_the_file_and_says_so(file: Path, home: Path) -> None:
    run = interrupted(file, home)
    (run / TASK).unlink()
    resume(run)
    assert notes(run) == [f"the run stores no copy of {file}; the file is used as it is now"]
    assert finished(run).steps == STEPS


def test_relative_paths_keep_their_meaning_in_another_folder(
    file: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(
        file.read_text().replace("torch.manual_seed(3)", 'torch.manual_seed(int(Path("seed.txt").read_text()))')
    )
    (tmp_path / "seed.txt").write_text("3")
    monkeypatch.chdir(tmp_path)
    run = interrupted(file, home)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume(run)
    assert finished(run).steps == STEPS


@as_root
def test_the_task_of_another_user_is_resumed_only_with_consent(file: Path, home: Path) -> None:
    run = interrupted(file, home)
    give_away(run)
    with Engine() as engine:
        reply = engine.ask(Continue(run=str(run)))
    assert isinstance(reply, Refused)
    assert f"belongs to {OTHER.pw_name}" in reply.message
    resume(run, trusted_owner=OTHER.pw_name)
    assert not any(isinstance(event, Failed) for event in events(run))
    assert finished(run).steps == STEPS


def test_ranks_execute_the_stored_copy_too(file: Path, home: Path) -> None:
    run = interrupted(file, home, processes=2)
    file.write_text("raise RuntimeError\n")
    resume(run)
    assert finished(run).steps == STEPS
