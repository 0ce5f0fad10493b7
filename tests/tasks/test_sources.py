"""The stored sources of a task replace its files, whatever happens to these."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import sources
from epochtop.engine.tasks.loader import load_recorded, load_task

MAIN = """\
# -*- coding: latin-1 -*-
from pathlib import Path

import torch
from torch import nn

from epochtop import Task
from layers import SIZE
from parts.inner.scale import FACTOR
from plain.shift import OFFSET

NAME = "f\xfcr"

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, SIZE)

    def forward(self, x):
        return FACTOR * self.layer(x) + OFFSET

def make_task():
    assert NAME == chr(102) + chr(252) + chr(114)
    x = torch.tensor([[float(word) for word in Path(__file__).with_name("rows.txt").read_text().split()]] * 4)
    return Task(Net(), (x, torch.arange(4) % SIZE))
"""
FILES = {
    "layers.py": "SIZE = 3\n",
    "parts/__init__.py": "",
    "parts/inner/__init__.py": "from .. import __name__ as outer\nassert outer == 'parts'\n",
    "parts/inner/scale.py": "FACTOR = 2.0\n",
    "plain/shift.py": "OFFSET = 1.0\n",
}
"""`plain` is a package without `__init__.py`."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task of several files, next to its data."""
    folder = tmp_path / "own"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own.py").write_bytes(MAIN.encode("latin-1"))
    (folder / "rows.txt").write_text("1.0 2.0")
    return folder


def output(folder: Path, stored: TaskRecord | None = None) -> torch.Tensor:
    """The model's output for one row, with weights of one."""
    task = load_task(f"{folder / 'own.py'}:make_task", stored)
    for weight in task.model.parameters():
        torch.nn.init.ones_(weight)
    return task.model(task.train[0][:1]).detach()  # type: ignore[index]


def recorded(folder: Path) -> TaskRecord:
    return load_recorded(f"{folder / 'own.py'}:make_task").record


def test_the_record_has_the_file_and_the_modules_of_its_folder(folder: Path) -> None:
    record = recorded(folder)
    names = {source.module: str(Path(source.path).relative_to(folder)) for source in record.sources}
    assert names == {
        "": "own.py",
        "layers": "layers.py",
        "parts": "parts/__init__.py",
        "parts.inner": "parts/inner/__init__.py",
        "parts.inner.scale": "parts/inner/scale.py",
        "plain.shift": "plain/shift.py",
    }
    for source in record.sources:
        assert source.sha256 == hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    assert record.stored
    assert record.working_folder == str(Path.cwd())


def test_stored_sources_are_executed_in_place_of_edited_files(folder: Path) -> None:
    expected = torch.tensor([[2.0 * (1 + 2 + 1) + 1] * 3])  # FACTOR (x1 + x2 + bias) + OFFSET
    record = recorded(folder)
    assert torch.equal(output(folder), expected)
    (folder / "layers.py").write_text("SIZE = 5\n")
    (folder / "parts" / "inner" / "scale.py").write_text("FACTOR = -2.0\n")
    (folder / "plain" / "shift.py").write_text("OFFSET = 7.0\n")
    (folder / "own.py").write_text("raise RuntimeError\n")
    assert torch.equal(output(folder, record), expected)
    assert sources.changed_files(record) == ["own.py", "layers.py", "scale.py", "shift.py"]
    with pytest.raises(Invalid, match="RuntimeError"):
        output(folder)


def test_stored_sources_need_no_files_but_data(folder: Path) -> None:
    record, expected = recorded(folder), output(folder)
    for name in ("own.py", "layers.py"):
        (folder / name).unlink()
    for name in ("parts", "plain"):
        shutil.rmtree(folder / name)
    assert torch.equal(output(folder, record), expected)
    assert torch.equal(output(folder, record), expected)


def test_a_module_that_is_not_stored_is_read_from_its_file(folder: Path) -> None:
    record = recorded(folder)
    without = tuple(source for source in record.sources if source.module != "layers")
    (folder / "layers.py").write_text("SIZE = 5\n")
    assert output(folder, msgspec.structs.replace(record, sources=without)).shape == (1, 5)


def test_errors_show_the_stored_line_and_later_that_of_the_file(folder: Path) -> None:
    broken = MAIN.replace("return FACTOR", 'raise ValueError("first") or FACTOR')
    (folder / "own.py").write_bytes(MAIN.encode("latin-1"))
    record = recorded(folder)
    stored = sources.task_record(folder / "own.py", broken.encode("latin-1"), {})
    record = TaskRecord(working_folder=record.working_folder, sources=(*stored.sources, *record.sources[1:]))
    with pytest.raises(Invalid, match='in forward: raise ValueError\\("first"\\)'):
        output(folder, record)
    (folder / "own.py").write_bytes(broken.replace("first", "second").encode("latin-1"))
    with pytest.raises(Invalid, match='in forward: raise ValueError\\("second"\\)'):
        output(folder)


def test_large_sources_are_compared_but_not_stored(folder: Path) -> None:
    (folder / "layers.py").write_text(f"SIZE = 3\n#{'x' * sources.MOST_BYTES}\n")
    record = recorded(folder)
    assert not record.stored
    assert [source.text for source in record.sources] == [None] * 6
    task = f"{folder / 'own.py'}:make_task"
    assert sources.describe_changes(record, task) == ""
    (folder / "layers.py").write_text("SIZE = 2\n")
    changes = sources.describe_changes(record, task)
    assert changes == "layers.py has changed since the run started; the files are used as they are now"
    assert output(folder, record).shape == (1, 2)


def test_relative_paths_refer_to_the_folder_in_which_the_task_was_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "own.py").write_text(
        (folder / "own.py")
        .read_bytes()
        .decode("latin-1")
        .replace('Path(__file__).with_name("rows.txt")', 'Path("rows.txt")')
        .replace("latin-1", "utf-8")
    )
    record = recorded(folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Invalid, match="FileNotFoundError"):
        output(folder, record)
    with sources.working_folder(record):
        assert output(folder, record).shape == (1, 3)
    assert Path.cwd() == tmp_path
