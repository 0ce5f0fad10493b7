"""Weights are used with the code they were trained with, and code of other users is executed only with consent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from epochtop.engine.process import commands
from epochtop.engine.runs.paths import TASK
from tests.support.fakes.owners import OTHER, as_root, give_away
from tests.support.trained_runs import floats, read_table, trained, weights, write_table

TASK_FILE = """\
import torch
from torch import nn
from epochtop import Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

def make_task():
    x = torch.randn(64, 2)
    return Task(Net(), (x, (x[:, 0] > 0).long()))
"""
ROWS = [[-1.5, 0.2], [-0.7, 1.0], [0.8, -0.4], [1.9, 0.3]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(TASK_FILE)
    return path


@pytest.fixture
def run(home: Path, file: Path) -> Path:
    torch.set_num_threads(1)
    return trained(home, task=f"{file}:make_task")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "rows.csv", ("p", "q"), ROWS)


def expected_chances(run: Path) -> np.ndarray:
    """Class probabilities by hand, from the stored weights."""
    kind = "best" if (run / "checkpoints" / "best.json").exists() else "last"
    net = {name: tensor.double() for name, tensor in weights(run, kind).items()}
    hidden = functional.relu(torch.tensor(ROWS).double() @ net["a.weight"].T + net["a.bias"])
    return torch.softmax(hidden @ net["b.weight"].T + net["b.bias"], dim=1).numpy()


def edit(file: Path) -> None:
    """Turn every prediction round, with layers that fit the weights."""
    file.write_text(TASK_FILE.replace("torch.relu(self.a(x))", "-torch.tanh(self.a(x))"))


def test_an_edited_file_does_not_change_predictions(
    run: Path, file: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(file)
    assert commands.main(["predict", str(run), str(table)]) == 0
    printed = capsys.readouterr()
    actual = floats(read_table(printed.out), "probability_0", "probability_1")
    np.testing.assert_allclose(actual, expected_chances(run), atol=1e-6)
    assert (
        printed.err
        == f"epochtop: {run.name}: own.py has changed since the run started; the run's stored copy is used\n"
    )


def test_an_edited_file_does_not_change_an_exported_model(
    run: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(file)
    path = tmp_path / "model.onnx"
    assert commands.main(["export", str(run), "--format", "onnx", "--output", str(path)]) == 0
    assert "own.py has changed since the run started" in capsys.readouterr().err
    from onnx.reference import ReferenceEvaluator

    (outputs,) = ReferenceEvaluator(str(path)).run(None, {"input": np.array(ROWS, dtype=np.float32)})
    actual = torch.softmax(torch.from_numpy(outputs), dim=1).numpy()
    np.testing.assert_allclose(actual, expected_chances(run), atol=1e-5)


def test_a_removed_file_is_not_needed(run: Path, file: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.unlink()
    assert commands.main(["predict", str(run), str(table)]) == 0
    actual = floats(read_table(capsys.readouterr().out), "probability_0", "probability_1")
    np.testing.assert_allclose(actual, expected_chances(run), atol=1e-6)


def test_relative_paths_work_from_every_folder(
    home: Path,
    file: Path,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file.write_text(TASK_FILE.replace("torch.randn(64, 2)", 'torch.load("x.pt")'))
    torch.save(torch.randn(64, 2), tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    run = trained(home, task=f"{file}:make_task", epochs=5)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert commands.main(["predict", str(run), f"../{table.name}", "--output", "answers.csv"]) == 0
    capsys.readouterr()
    actual = floats(read_table((tmp_path / "elsewhere" / "answers.csv").read_text()), "probability_0", "probability_1")
    np.testing.assert_allclose(actual, expected_chances(run), atol=1e-6)


@pytest.mark.parametrize("command", ["predict", "export"])
@as_root
def test_the_task_of_another_user_is_not_executed(
    command: str, run: Path, file: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n{TASK_FILE}")
    (run / TASK).write_text((run / TASK).read_text().replace("import torch", f"open('{tmp_path}/executed', 'w')", 1))
    give_away(run)
    arguments = [str(table)] if command == "predict" else ["--format", "onnx"]
    assert commands.main([command, str(run), *arguments]) == 2
    assert f"{run.name} belongs to {OTHER.pw_name}" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


@as_root
def test_with_consent_the_file_is_executed_but_never_the_copy_in_the_run(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / TASK).write_text((run / TASK).read_text().replace("import torch", f"open('{tmp_path}/executed', 'w')", 1))
    give_away(run)
    assert commands.main(["predict", str(run), str(table), "--trust", OTHER.pw_name]) == 0
    actual = floats(read_table(capsys.readouterr().out), "probability_0", "probability_1")
    np.testing.assert_allclose(actual, expected_chances(run), atol=1e-6)
    assert not (tmp_path / "executed").exists()


@as_root
def test_weights_of_another_user_are_exported_without_a_question(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_away(run)
    path = tmp_path / "weights.safetensors"
    assert commands.main(["export", str(run), "--format", "safetensors", "--output", str(path)]) == 0
    assert path.exists()


def test_a_checkpoint_behind_a_link_is_not_used(run: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tensors in (run / "checkpoints").glob("*.safetensors"):
        tensors.rename(run / tensors.name)
        tensors.symlink_to(run / tensors.name)
    assert commands.main(["predict", str(run), str(table)]) == 2
    assert "is a link" in capsys.readouterr().err
