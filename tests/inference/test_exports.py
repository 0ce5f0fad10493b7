"""Every export of a run can be read by its target program."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from torch import nn

from epochtop.engine.process import commands
from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.runs.paths import TASK
from epochtop.engine.runs.reader import read_record
from tests.cli.test_commands import command
from tests.runs.test_files import largest_file, names
from tests.support.engines import HANGING_S, events, losses
from tests.support.runs import events_of, losses_like_iris, started, windows, write_run
from tests.support.trained_runs import trained, weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of packages that the readers import
    import onnx
    from onnx.reference import ReferenceEvaluator
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def exported(capsys: pytest.CaptureFixture[str], run: Path, form: str, *options: str) -> Path:
    """The path that the command prints."""
    assert commands.main(["export", str(run), "--format", form, *options]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    return Path(printed.out.splitlines()[0])


def refused(capsys: pytest.CaptureFixture[str], run: Path, form: str, *options: str) -> str:
    assert commands.main(["export", str(run), "--format", form, *options]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    return printed.err


# --- TensorBoard -------------------------------------------------------------------------------------------


def curves(folder: Path) -> EventAccumulator:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    return reader


def test_tensorboard_reads_every_step_and_every_evaluation(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(home, eval_epochs=10, epochs=100, schedule="cosine")
    folder = exported(capsys, run, "tensorboard")
    assert folder == Path("tensorboard") / run.name
    reader = curves(folder)
    train = reader.Scalars("loss/train")
    assert [point.step for point in train] == list(range(100))
    np.testing.assert_array_equal(np.array([point.value for point in train], np.float32), losses(run))
    times = [point.wall_time for point in train]
    assert times == sorted(times)
    judged = [event for event in events(run) if isinstance(event, Evaluated)]
    assert len(judged) >= 10
    test = reader.Scalars("loss/test")
    assert [point.step for point in test] == [event.step for event in judged]
    np.testing.assert_allclose([point.value for point in test], [event.loss for event in judged], rtol=1e-6)
    accuracy = reader.Scalars("metric/accuracy")
    np.testing.assert_allclose([point.value for point in accuracy], [event.metric for event in judged], rtol=1e-6)
    assert "metric/f1" in reader.Tags()["scalars"]
    assert reader.Scalars("learning_rate")[-1].value < 0.02
    text = reader.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"dataset": "iris"' in text


def test_steps_have_the_time_of_the_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = losses_like_iris(1000)
    begin = started()
    run = write_run(home, "iris-mlp-11c0", [begin, *windows(values, size=250, seconds_per_step=0.5)])
    times = [point.wall_time for point in curves(exported(capsys, run, "tensorboard")).Scalars("loss/train")]
    np.testing.assert_allclose(times, [begin.time + 0.5 * (step + 1) for step in range(1000)], atol=1e-3)


def test_nan_and_a_damaged_line_do_not_stop_an_export(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(home, "iris-mlp-11c0", events_of("diverged"))
    log = (run / "events.jsonl").read_bytes().split(b"\n")
    (run / "events.jsonl").write_bytes(b"\n".join([*log[:1], b"{not json", *log[1:]]))
    assert commands.main(["export", str(run), "--format", "tensorboard", "--output", "board"]) == 0
    assert "line 2" in capsys.readouterr().err
    train = curves(Path("board")).Scalars("loss/train")
    assert len(train) == 300
    assert sum(np.isnan(point.value) for point in train) == 88


def test_an_export_replaces_an_earlier_one_and_nothing_else(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(home, "iris-mlp-11c0", [started(), *windows(losses_like_iris(1000))])
    for _ in range(2):
        folder = exported(capsys, run, "tensorboard", "--output", "board")
    assert len(list(folder.iterdir())) == 1
    assert len(curves(folder).Scalars("loss/train")) == 1000
    other = folder / "events.out.tfevents.1.box"
    other.write_bytes(b"")
    assert "another program" in refused(capsys, run, "tensorboard", "--output", "board")
    assert len(list(folder.iterdir())) == 2


# --- weights -----------------------------------------------------------------------------------------------


def test_weights_are_read_by_safetensors_and_by_torch(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(home)
    expected = weights(run)
    assert set(expected) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    path = exported(capsys, run, "safetensors")
    assert path.name == f"{run.name}.safetensors"
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(expected)
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in expected.items())
        about = file.metadata()
    assert json.loads(about["spec"])["dataset"] == "iris"
    assert json.loads(about["preparation"])["classes"] == ["setosa", "versicolor", "virginica"]
    path = exported(capsys, run, "torch", "--output", "weights.pt")
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
    model.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(model[2].weight, expected["2.weight"])


@pytest.mark.parametrize("form", ["safetensors", "torch", "onnx"])
def test_an_export_that_the_disk_refuses_leaves_the_old_file_and_nothing_else(
    form: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(home, epochs=2)
    folder = Path("exports")
    folder.mkdir()
    (folder / "weights").write_bytes(b"of yesterday")
    with largest_file(100):
        assert "cannot write" in refused(capsys, run, form, "--output", "exports/weights")
    assert names(folder) == ["weights"]
    assert (folder / "weights").read_bytes() == b"of yesterday"


def test_exported_weights_of_a_custom_task_do_not_need_its_file(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\nfrom torch import nn\nfrom epochtop import Task\n\n"
        "def make_task():\n    x = torch.randn(8, 2)\n    return Task(nn.Linear(2, 3), (x, torch.arange(8) % 3))\n"
    )
    run = trained(home, task=f"{file}:make_task", epochs=2)
    onnx.checker.check_model(onnx.load(exported(capsys, run, "onnx")), full_check=True)
    file.unlink()
    tensors = torch.load(exported(capsys, run, "torch"), weights_only=True)
    assert torch.equal(tensors["weight"], weights(run)["weight"])
    (run / TASK).unlink()  # as in a run of an earlier version
    assert "there is no file" in refused(capsys, run, "onnx")


# --- ONNX --------------------------------------------------------------------------------------------------


def inference(path: Path, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The result of ONNX's reference evaluator."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (output,) = ReferenceEvaluator(model).run(None, {"input": x})
    return np.asarray(output)


def test_onnx_computes_what_the_weights_compute(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(home)
    x = np.random.default_rng(1).random((7, 4), dtype=np.float32)
    path = exported(capsys, run, "onnx")
    tensors = {name: tensor.numpy() for name, tensor in weights(run).items()}
    hidden = np.maximum(x @ tensors["0.weight"].T + tensors["0.bias"], 0)
    np.testing.assert_allclose(
        inference(path, x), hidden @ tensors["2.weight"].T + tensors["2.bias"], rtol=1e-4, atol=1e-5
    )
    about = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(about["preparation"])["scaling"] == "minmax"


def test_images_and_texts_are_translated_too(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from epochtop.engine.inference.trained_model import load

    draw = np.random.default_rng(1)
    np.savez(tmp_path / "s.npz", x=draw.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8), y=np.arange(20) % 2)
    (tmp_path / "rhyme.txt").write_text("round and round the rugged rock the ragged rascal ran\n" * 20)
    image = trained(home, dataset=f"npz:{tmp_path / 's.npz'}", model="cnn", width=4, epochs=1)
    text = trained(
        home,
        dataset=f"text:{tmp_path / 'rhyme.txt'}",
        model="transformer",
        width=8,
        heads=2,
        layers=1,
        context=8,
        epochs=1,
    )
    for run, x in (
        (image, draw.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)),
        (text, draw.integers(0, 10, (5, 8), dtype=np.uint8)),
    ):
        with torch.no_grad():
            expected = load(run).model(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(inference(exported(capsys, run, "onnx"), x), expected, rtol=1e-3, atol=1e-4)


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "package", "printed"),
    [("tensorboard", "tensorboard", "pip install tensorboard"), ("onnx", "onnxscript", "pip install onnx onnxscript")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    form: str,
    package: str,
    printed: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trained(home, epochs=2)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert printed in refused(capsys, run, form)
    assert not list(Path().glob("*.onnx")) + list(Path().glob("tensorboard"))


def test_missing_weights_and_unwritable_paths_are_explained(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(home, epochs=2)
    for form in ("safetensors", "torch", "onnx", "tensorboard"):
        Path("file").touch()
        assert "cannot write" in refused(capsys, run, form, "--output", "file/below")
    empty = write_run(home, "iris-mlp-0000", [started()])
    for form in ("safetensors", "torch", "onnx"):
        assert "no checkpoint yet" in refused(capsys, empty, form)


def test_a_model_that_torch_cannot_translate_is_explained(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\nfrom epochtop import Task\n\n"
        "class Odd(nn.Linear):\n    def forward(self, x):\n"
        "        return super().forward(x) * (1.0 if x.sum().item() > 0 else 2.0)\n\n"
        "def make_task():\n    x = torch.randn(8, 2)\n    return Task(Odd(2, 3), (x, torch.arange(8) % 3))\n"
    )
    run = trained(home, task=f"{tmp_path / 'own.py'}:make_task", epochs=2)
    printed = refused(capsys, run, "onnx")
    assert "cannot translate this model to ONNX" in printed
    assert "own.py, line 7, in forward" in printed


def test_the_command_exports_through_an_engine(home: Path, tmp_path: Path) -> None:
    run = trained(home, epochs=20)

    def export(*options: str) -> subprocess.CompletedProcess[str]:
        line = command("export", "last", *options)
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=HANGING_S, cwd=tmp_path)

    done = export("--format", "torch")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"{run.name}.pt"
    assert (tmp_path / f"{run.name}.pt").is_file()
    printed = export("--format", "csv").stdout
    assert export("--format", "csv", "--output", "losses.csv").stdout == ""
    assert (tmp_path / "losses.csv").read_text() == printed
    assert len(printed.splitlines()) == 21
    wrong = export("--format", "csv", "--output", "nowhere/losses.csv")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "epochtop: cannot write nowhere/losses.csv: No such file or directory\n",
    )
    assert read_record(run).spec.epochs == 20
