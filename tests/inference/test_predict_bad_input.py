"""Bad input for `predict` is explained in one line, with exit status 2, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from epochtop.engine.process import commands
from epochtop.engine.runs.paths import TASK
from tests.support.fakes.script_runs import SCRIPT_STARTED, write_script_run
from tests.support.trained_runs import FLOWERS, flowers, read_table, trained, write_table

HEADER = ",".join(FLOWERS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flowers")
    table = flowers(folder / "flowers.csv")
    return trained(folder / "runs", dataset=f"csv:{table}", target="species", epochs=2)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error message of `predict`."""
    assert commands.main(["predict", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("epochtop: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


def test_a_run_of_a_script_has_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write_script_run(tmp_path, "a-0001", [SCRIPT_STARTED])
    assert "recorded by a script" in refused(capsys, script, tmp_path / "rows.csv")


FILES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "missing columns": (b"sepal length,petal width\n1,2\n", ("'sepal width'", "'petal length'")),
    "a short row": (f"{HEADER}\n1,2,3,4\n1,2\n".encode(), ("line 3", "2 cells", "4")),
    "an open quote": (f'{HEADER}\n1,2,3,"4\n'.encode(), ("line 2",)),
    "an empty file": (b"", ("empty", "header")),
    "no text": (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", ("PNG image", "not a CSV file")),
    "a column twice": (f"{HEADER},sepal width\n1,2,3,4,5\n".encode(), ("'sepal width'", "twice")),
    "predicted already": (f"{HEADER},prediction\n1,2,3,4,setosa\n".encode(), ("'prediction'", "already")),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_explained(
    case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, needles = FILES[case]
    table, output = tmp_path / "new.csv", tmp_path / "out.csv"
    table.write_bytes(content)
    output.write_text("kept")
    printed = refused(capsys, run, table, "--output", output)
    assert all(needle in printed for needle in needles), printed
    assert output.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["new.csv", "out.csv"]


CELLS: dict[str, tuple[str, str]] = {
    "text": ("many", "'sepal width': 'many' is not a number"),
    "an underscore": ("1_000", "'sepal width': '1_000' is not a number"),
    "digits of another script": ("١", "'sepal width': '١' is not a number"),
    "infinity": ("inf", "'sepal width': 'inf' is not a number"),
    "too large": ("1e300", "'sepal width': 1e+300 is not a number that the model can take"),
}


@pytest.mark.parametrize("case", CELLS)
def test_a_row_that_cannot_be_predicted_has_a_reason_and_the_others_a_prediction(
    case: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, reason = CELLS[case]
    table = write_table(tmp_path / "new.csv", FLOWERS, [[5, 3, 1, 0.2], [5, cell, 1, 0.2], [5, "", 1, 0.2]])
    assert commands.main(["predict", str(run), str(table)]) == 0
    printed = capsys.readouterr()
    good, bad, filled = read_table(printed.out)
    assert (good["prediction"], good["reason"]) != ("", "")
    assert {name: text for name, text in bad.items() if name not in (*FLOWERS, "reason") and text} == {}
    assert bad["reason"] == reason
    assert (filled["prediction"] in ("setosa", "versicolor", "virginica"), filled["reason"]) == (True, "")
    assert printed.err.startswith("epochtop: 1 of 3 rows have no prediction")
    assert printed.err.endswith(f"line 3: {reason}\n")


def test_a_path_that_is_not_a_file_is_explained(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no file" in refused(capsys, run, tmp_path / "nothing.csv")
    assert "is a folder" in refused(capsys, run, tmp_path)
    assert "not a regular file" in refused(capsys, run, "/dev/null")


def test_an_output_that_cannot_be_written_is_explained(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "new.csv", FLOWERS, [[1, 2, 3, 4]])
    before = table.read_bytes()
    assert "another name" in refused(capsys, run, table, "--output", table)
    (tmp_path / "link.csv").symlink_to(table)
    assert "another name" in refused(capsys, run, table, "--output", tmp_path / "link.csv")
    assert table.read_bytes() == before
    assert "cannot write" in refused(capsys, run, table, "--output", tmp_path / "nowhere" / "out.csv")
    assert "cannot write" in refused(capsys, run, table, "--output", tmp_path)


def test_columns_cannot_be_named_for_a_run_with_column_names(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "new.csv", FLOWERS, [[1, 2, 3, 4]])
    assert "'petal width'" in refused(capsys, run, table, "--columns", "a,b")


def _no_checkpoint(run: Path) -> None:
    for name in ("best", "last"):
        (run / "checkpoints" / f"{name}.json").unlink()


def _no_preparation(run: Path) -> None:
    (run / "preparation.json").unlink()


def _torn_preparation(run: Path) -> None:
    (run / "preparation.json").write_bytes(b'{"kind":"tab')


def _lost_weights(run: Path) -> None:
    for path in (run / "checkpoints").glob("best-*.safetensors"):
        path.unlink()


def _torn_weights(run: Path) -> None:
    for path in (run / "checkpoints").glob("best-*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])


def _diverged(run: Path) -> None:
    """Its best weights are not finite, and the file is as it was written."""
    for path in (run / "checkpoints").glob("best-*.safetensors"):
        save_file(load_file(path) | {"model.0.bias": torch.full((10,), float("nan"))}, path)
        record = run / "checkpoints" / "best.json"
        checkpoint = json.loads(record.read_text()) | {"sha256": sha256(path.read_bytes()).hexdigest()}
        record.write_text(json.dumps(checkpoint))


def _another_model(run: Path) -> None:
    record = run / "run.json"
    record.write_bytes(record.read_bytes().replace(b'"hidden":[10]', b'"hidden":[11]'))


DAMAGE: dict[Callable[[Path], None], str] = {
    _no_checkpoint: "no checkpoint yet",
    _no_preparation: "preparation.json",
    _torn_preparation: "preparation.json",
    _lost_weights: "lost its file",
    _torn_weights: "cannot be read",
    _diverged: "diverged",
    _another_model: "do not fit",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
def test_a_run_that_cannot_predict_explains_why(
    damage: Callable[[Path], None], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = flowers(tmp_path / "flowers.csv")
    run = trained(home, dataset=f"csv:{table}", target="species", epochs=2, hidden=(10,), name="damaged")
    damage(run)
    assert DAMAGE[damage] in refused(capsys, run, table)


def test_a_text_has_no_rows_to_predict(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "rhyme.txt"
    text.write_text("round and round the rugged rock the ragged rascal ran\n" * 20)
    run = trained(
        home,
        dataset=f"text:{text}",
        model="transformer",
        width=8,
        heads=2,
        layers=1,
        context=8,
        epochs=1,
        batch_size=32,
    )
    assert "trained on a text" in refused(capsys, run, flowers(tmp_path / "flowers.csv"))


def test_number_and_range_of_unnamed_columns_are_checked(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "s.npz", x=np.arange(80, dtype=np.uint8).reshape(20, 1, 2, 2), y=np.arange(20) % 2)
    run = trained(home, dataset=f"npz:{tmp_path / 's.npz'}", epochs=1)
    few = write_table(tmp_path / "few.csv", ("a", "b"), [[1, 2]])
    assert "takes 4 numbers per row" in refused(capsys, run, few)
    odd = write_table(tmp_path / "odd.csv", ("a", "b", "c", "d"), [[1, 2, 3, 4], [1, 2, 3, 256]])
    printed = refused(capsys, run, odd)
    assert "row 2" in printed
    assert "'d'" in printed
    assert "0 to 255" in printed
    assert "--columns names 1" in refused(capsys, run, odd, "--columns", "a")
    assert "'z'" in refused(capsys, run, odd, "--columns", "a,b,c,z")


def test_a_changed_custom_task_is_reported_for_a_run_without_a_copy_of_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\nfrom torch import nn\nfrom epochtop import Task\n\n"
        "def make_task():\n    x = torch.randn(8, 2)\n    return Task(nn.Linear(2, 3), (x, torch.arange(8) % 3))\n"
    )
    run = trained(home, task=f"{file}:make_task", epochs=2)
    (run / TASK).unlink()
    table = write_table(tmp_path / "x.csv", ("a", "b"), [[1, 2]])
    file.write_text(file.read_text().replace("Linear(2, 3)", "Linear(2, 4)"))
    assert "has changed since" in refused(capsys, run, table)
    file.unlink()
    assert "there is no file" in refused(capsys, run, table)
