"""Predictions for new rows equal a hand-written forward pass, with class names and raw units."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import Tensor
from torch.nn import functional

from epochtop.engine.process import commands
from epochtop.engine.protocol.spec import RunSpec
from tests.cli.test_commands import command
from tests.support.engines import HANGING_S, Engine, Watch
from tests.support.trained_runs import FLOWERS, floats, flowers, houses, read_table, trained, weights, write_table

SPECIES = ("setosa", "versicolor", "virginica")
CHANCES = tuple(f"probability_{name}" for name in SPECIES)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def perceptron(x: Tensor, tensors: dict[str, Tensor], prefix: str = "") -> Tensor:
    """Two linear layers with ReLU in between."""
    hidden = functional.relu(x @ tensors[f"{prefix}0.weight"].T + tensors[f"{prefix}0.bias"])
    return hidden @ tensors[f"{prefix}2.weight"].T + tensors[f"{prefix}2.bias"]


def predicted(capsys: pytest.CaptureFixture[str], *arguments: object, delimiter: str = ",") -> list[dict[str, str]]:
    """The output rows of `predict`."""
    assert commands.main(["predict", *map(str, arguments)]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    return read_table(printed.out, delimiter)


def flower_run(home: Path, folder: Path, **fields: object) -> tuple[Path, Path]:
    table = flowers(folder / "flowers.csv")
    return trained(home, dataset=f"csv:{table}", target="species", **fields), table


def expected_chances(table: Path, tensors: dict[str, Tensor], scaler: MinMaxScaler | StandardScaler) -> np.ndarray:
    """Class probabilities, from scikit-learn's scaling and a forward pass."""
    x = floats(read_table(table.read_text()), *FLOWERS)
    train, _ = train_test_split(x, test_size=0.2, random_state=42)
    scaled = torch.from_numpy(scaler.fit(train).transform(x).astype(np.float32))
    return torch.softmax(perceptron(scaled, tensors), dim=1).numpy()


@pytest.mark.parametrize("scaling", ["minmax", "standard"])
def test_classes_and_probabilities_are_those_of_a_hand_written_forward_pass(
    scaling: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = flower_run(home, tmp_path, scaling=scaling)
    rows = predicted(capsys, run, table)
    expected = expected_chances(table, weights(run), MinMaxScaler() if scaling == "minmax" else StandardScaler())
    actual = floats(rows, *CHANCES)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_allclose(actual.sum(axis=1), 1, atol=1e-7)
    assert [row["prediction"] for row in rows] == [SPECIES[best] for best in expected.argmax(axis=1)]
    right = sum(row["prediction"] == row["species"] for row in rows)
    assert right > 0.8 * len(rows)


def test_columns_are_selected_by_name_and_all_others_are_copied(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = flower_run(home, tmp_path)
    first = predicted(capsys, run, table)
    rows = read_table(table.read_text())
    names = ("note", *reversed(FLOWERS))
    notes = ['a "quoted", note', "two\nlines", ""]
    turned = [[notes[at % 3], *(row[name] for name in reversed(FLOWERS))] for at, row in enumerate(rows)]
    other = write_table(tmp_path / "new.csv", names, turned, delimiter=";")
    other.write_text("\ufeff" + other.read_text().replace("\r\n", "\n") + "\n\n", encoding="utf-8")
    output = tmp_path / "out.csv"
    assert commands.main(["predict", str(run), str(other), "--output", str(output)]) == 0
    assert capsys.readouterr().out.startswith(f"{output}: 150 predictions with the best weights, of step ")
    with open(output, encoding="utf-8", newline="") as file:
        header, *cells = list(csv.reader(file, delimiter=";"))
    assert header == [*names, "prediction", *CHANCES]
    assert [row[:5] for row in cells] == turned
    assert [row[5:] for row in cells] == [[row[name] for name in ("prediction", *CHANCES)] for row in first]


def test_a_regression_predicts_in_the_unit_of_the_raw_target(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = houses(tmp_path / "houses.csv")
    run = trained(home, dataset=f"csv:{table}", target="price", epochs=300)
    rows = predicted(capsys, run, table)
    assert list(rows[0]) == ["area", "age", "price", "prediction"]
    x, price = floats(rows, "area", "age"), floats(rows, "price")[:, 0]
    train, _, price_train, _ = train_test_split(x, price, test_size=0.2, random_state=42)
    scaled = torch.from_numpy(MinMaxScaler().fit(train).transform(x).astype(np.float32))
    expected = perceptron(scaled, weights(run))[:, 0].double().numpy() * price_train.std() + price_train.mean()
    actual = floats(rows, "prediction")[:, 0]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert np.abs(actual - price).mean() < 0.1 * price.std()


def test_two_classes_have_a_probability_each(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(home, dataset="sums", epochs=3, batch_size=64)
    x = np.random.default_rng(8).standard_normal((300, 20))
    rows = predicted(capsys, run, write_table(tmp_path / "x.csv", [f"x{at}" for at in range(20)], x.tolist()))
    chances = floats(rows, "probability_sum ≤ 0", "probability_sum > 0")
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-7)
    names = np.array([row["prediction"] for row in rows])
    assert (names == np.where(chances[:, 1] > chances[:, 0], "sum > 0", "sum ≤ 0")).all()
    assert ((names == "sum > 0") == (x.sum(axis=1) > 0)).mean() > 0.9


def test_classes_are_answered_as_they_were_written(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = ["01", "1", "02", "2"] * 10
    rows = [[row % 4, row % 4 > 1, code] for row, code in enumerate(codes)]
    table = write_table(tmp_path / "codes.csv", ("a", "b", "code"), [[float(a), int(b), code] for a, b, code in rows])
    run = trained(home, dataset=f"csv:{table}", target="code", hidden=(16,), epochs=400, learning_rate=0.05)
    answers = predicted(capsys, run, table)
    assert [row["prediction"] for row in answers] == codes
    assert {name for name in answers[0] if name.startswith("probability_")} == {f"probability_{code}" for code in codes}


def test_predictions_use_the_moving_average_if_there_is_one(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = flower_run(home, tmp_path, ema=0.9, learning_rate=0.1)
    (run / "checkpoints" / "best.json").unlink()
    actual = floats(predicted(capsys, run, table), *CHANCES)
    average, newest = (
        expected_chances(table, weights(run, "last", part), MinMaxScaler()) for part in ("average.", "model.")
    )
    np.testing.assert_allclose(actual, average, atol=1e-6)
    assert np.abs(actual - newest).max() > 1e-4


def test_predictions_use_the_last_weights_if_there_are_no_best(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = flower_run(home, tmp_path, eval_epochs=1, learning_rate=2.0, optimizer="sgd", schedule="cosine")
    best, last = (expected_chances(table, weights(run, kind), MinMaxScaler()) for kind in ("best", "last"))
    np.testing.assert_allclose(floats(predicted(capsys, run, table), *CHANCES), best, atol=1e-6)
    (run / "checkpoints" / "best.json").unlink()
    np.testing.assert_allclose(floats(predicted(capsys, run, table), *CHANCES), last, atol=1e-6)


def test_a_file_without_rows_gives_a_header(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = flower_run(home, tmp_path, epochs=2)
    empty = write_table(tmp_path / "empty.csv", FLOWERS, [])
    assert commands.main(["predict", str(run), str(empty)]) == 0
    assert capsys.readouterr().out == ",".join((*FLOWERS, "prediction", *CHANCES)) + "\n"


def test_images_are_read_from_columns_of_pixels(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(4)
    x, y = draw.integers(0, 256, (60, 1, 4, 5), dtype=np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "small.npz", x=x, y=y)
    run = trained(home, dataset=f"npz:{tmp_path / 'small.npz'}", test_fraction=0.5, epochs=30)
    table = write_table(
        tmp_path / "pixels.csv",
        ("label", *(f"pixel{at}" for at in range(20))),
        np.concatenate((y[:, None], x.reshape(60, 20)), axis=1).tolist(),
    )
    actual = floats(predicted(capsys, run, table), *(f"probability_{name}" for name in "012"))
    train, _ = train_test_split(x / 255, test_size=0.5, random_state=42)
    scaled = torch.from_numpy(((x / 255 - train.mean()) / train.std()).reshape(60, 20).astype(np.float32))
    expected = torch.softmax(perceptron(scaled, weights(run), "mlp."), dim=1)
    np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5)


TASK = """
import torch
from torch import nn
from epochtop import Task

class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weigh = nn.Linear(2, {outputs})
    def forward(self, x):
        return self.weigh(x){squeezed}

def make_task():
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    return Task(model=Sum(), train=(x, {labels}){more})
"""


def task_file(folder: Path, **parts: str) -> str:
    """A task in a file."""
    (folder / "own.py").write_text(TASK.format(**parts))
    return f"{folder / 'own.py'}:make_task"


def test_a_custom_task_predicts_from_numeric_columns(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_file(
        tmp_path, outputs="1", squeezed=".squeeze(1)", labels="x.sum(1)", more=", loss=nn.functional.mse_loss"
    )
    run = trained(home, task=task)
    x = np.random.default_rng(2).standard_normal((40, 2))
    rows = [[f"row {at}", *pair] for at, pair in enumerate(x.tolist())]
    tensors = weights(run)
    expected = x.astype(np.float32) @ tensors["weigh.weight"].numpy()[0] + tensors["weigh.bias"].numpy()
    actual = predicted(capsys, run, write_table(tmp_path / "x.csv", ("name", "a", "b"), rows))
    np.testing.assert_allclose(floats(actual, "prediction")[:, 0], expected, atol=1e-5)
    more = write_table(tmp_path / "more.csv", ("b", "c", "a"), [[pair[1], 7, pair[0]] for pair in x.tolist()])
    actual = predicted(capsys, run, more, "--columns", "a, b")
    np.testing.assert_allclose(floats(actual, "prediction")[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize(("more", "names"), [("", "01"), (", classes=('low', 'high')", ("low", "high"))])
def test_a_custom_task_with_cross_entropy_names_its_classes(
    more: str, names: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(home, task=task_file(tmp_path, outputs="2", squeezed="", labels="(x.sum(1) > 0).long()", more=more))
    x = np.random.default_rng(2).standard_normal((40, 2))
    rows = predicted(capsys, run, write_table(tmp_path / "x.csv", ("a", "b"), x.tolist()))
    tensors = weights(run)
    logits = torch.from_numpy(x.astype(np.float32)) @ tensors["weigh.weight"].T + tensors["weigh.bias"]
    expected = torch.softmax(logits, dim=1).numpy()
    np.testing.assert_allclose(floats(rows, *(f"probability_{name}" for name in names)), expected, atol=1e-6)
    assert [row["prediction"] for row in rows] == [names[best] for best in expected.argmax(axis=1)]


def test_a_custom_task_with_other_outputs_predicts_these(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(2).standard_normal((40, 2))
    table = write_table(tmp_path / "x.csv", ("a", "b"), x.tolist())
    task = task_file(tmp_path, outputs="2", squeezed="", labels="x.flip(1)", more=", loss=nn.functional.mse_loss")
    run = trained(home, task=task)
    tensors = weights(run)
    expected = x.astype(np.float32) @ tensors["weigh.weight"].numpy().T + tensors["weigh.bias"].numpy()
    rows = predicted(capsys, run, table)
    np.testing.assert_allclose(floats(rows, "prediction_1", "prediction_2"), expected, atol=1e-5)
    loss = ", loss=nn.functional.binary_cross_entropy_with_logits"
    run = trained(home, task=task_file(tmp_path, outputs="1", squeezed="", labels="(x[:, :1] > 0).float()", more=loss))
    tensors = weights(run)
    logits = torch.from_numpy(x.astype(np.float32)) @ tensors["weigh.weight"].T + tensors["weigh.bias"]
    rows = predicted(capsys, run, table)
    np.testing.assert_allclose(floats(rows, "probability_1")[:, 0], torch.sigmoid(logits)[:, 0].numpy(), atol=1e-6)
    assert [row["prediction"] for row in rows] == ["1" if logit > 0 else "0" for logit in logits[:, 0].tolist()]


def test_the_command_passes_on_predictions_and_errors(home: Path, tmp_path: Path, engine: Engine) -> None:
    table = flowers(tmp_path / "flowers.csv")
    spec = RunSpec(dataset=f"csv:{table}", target="species", name="flowers", epochs=2, device="cpu", threads=1)
    Watch(engine.train(spec, home)).end()
    assert engine.wait() == 0

    def epochtop(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("predict", *arguments),
            capture_output=True, text=True, check=False, timeout=HANGING_S, cwd=tmp_path,
        )  # fmt: skip

    done = epochtop("flowers", "flowers.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["species"] for row in read_table(done.stdout)] == [
        row["species"] for row in read_table(table.read_text())
    ]
    assert all(row["prediction"] in SPECIES for row in read_table(done.stdout))
    wrong = epochtop("flowers", "nothing.csv")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "epochtop: there is no file nothing.csv\n"
