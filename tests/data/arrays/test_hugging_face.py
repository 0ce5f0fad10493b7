"""Datasets that the real package saves become rows; expected values are those that were saved."""

from __future__ import annotations

import csv
import sys
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epochtop.engine.data.dataset import PreparedDataset
from epochtop.engine.data.load import load
from epochtop.engine.protocol.spec import Invalid, RunSpec

CHANCE = np.random.default_rng(2)


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of packages that it imports
        return pytest.importorskip("datasets")


def loaded(folder: Path, **fields: object) -> PreparedDataset:
    return load(RunSpec(dataset=f"hf:{folder}", **fields))  # type: ignore[arg-type]


def test_texts_with_class_names(datasets: Any, tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = {"text": [f"film {number}" for number in range(20)], "label": [number % 2 for number in range(20)]}
    train = datasets.Dataset.from_dict(rows, features=features)
    unlabeled = datasets.Dataset.from_dict({"text": ["a"], "label": [-1]}, features=features)
    splits = {"train": train, "validation": train.select(range(5)), "test": unlabeled, "unsupervised": unlabeled}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "d"))
    prepared = loaded(tmp_path / "d")
    assert (prepared.preparation.kind, prepared.preparation.classes) == ("document", ("neg", "pos"))
    assert (len(prepared.train), len(prepared.validation), len(prepared.test)) == (16, 5, 4)
    assert prepared.validation.y.tolist() == [0, 1, 0, 1, 0]


def test_images_in_parquet_files(datasets: Any, tmp_path: Path) -> None:
    pixels = CHANCE.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = datasets.Dataset.from_dict(
        {"image": [*map(Image.fromarray, pixels)], "label": [0, 1] * 3}, features=features
    )
    for part in ("train", "test"):
        (tmp_path / "data").mkdir(exist_ok=True)
        images.to_parquet(str(tmp_path / "data" / f"{part}-00000-of-00001.parquet"))
    prepared = loaded(tmp_path, model="mlp")
    assert (prepared.preparation.classes, prepared.preparation.image) == (("cat", "dog"), (3, 5, 4))
    assert np.array_equal(prepared.test.x, pixels.transpose(0, 3, 1, 2))


def test_columns_of_numbers_are_a_table(datasets: Any, tmp_path: Path) -> None:
    columns = {"a": [*range(30)], "name": ["x"] * 30, "target": [number * 1.5 for number in range(30)]}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "d"))
    prepared = loaded(tmp_path / "d", test_fraction=0, scaling="none")
    assert prepared.preparation.columns == ("a",)
    assert prepared.train.x[:, 0].tolist() == columns["a"]
    assert prepared.preparation.target_center == pytest.approx(np.mean(columns["target"]))
    with pytest.raises(Invalid, match=r"there is no column 'b'; the columns are a, name, target"):
        loaded(tmp_path / "d", target="b")


ROWS = 40
PEOPLE: dict[str, list[Any]] = {
    "age": [None if row % 10 == 3 else 20.0 + row for row in range(ROWS)],
    "sex": [None if row % 20 == 7 else ("female", "male")[row % 2] for row in range(ROWS)],
    "port": [-1 if row % 8 == 5 else row % 3 for row in range(ROWS)],
    "born": [date(1980, 1 + row % 12, 1) for row in range(ROWS)],
    "survived": [-1 if row == 9 else int(row % 5 < 2) for row in range(ROWS)],
}
PORTS, FATES = ("S", "C", "Q"), ("yes", "died")


def write_csv(path: Path, people: dict[str, list[Any]]) -> None:
    """The same table with the names of the classes, and an empty cell for a missing value."""
    shown = people | {
        "port": ["" if code < 0 else PORTS[code] for code in people["port"]],
        "survived": ["" if code < 0 else FATES[code] for code in people["survived"]],
    }
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(shown)
        rows.writerows(zip(*shown.values(), strict=True))


@pytest.mark.parametrize("missing", ["fill", "drop"])
def test_a_table_is_treated_as_the_same_csv_file(datasets: Any, tmp_path: Path, missing: str) -> None:
    features = datasets.Features(
        age=datasets.Value("float64"),
        sex=datasets.Value("string"),
        port=datasets.ClassLabel(names=list(PORTS)),
        born=datasets.Value("date32"),
        survived=datasets.ClassLabel(names=list(FATES)),
    )
    datasets.Dataset.from_dict(PEOPLE, features=features).save_to_disk(str(tmp_path / "d"))
    write_csv(tmp_path / "d.csv", PEOPLE)
    fields = {"target": "survived", "missing": missing}
    saved = loaded(tmp_path / "d", **fields)
    table = load(RunSpec(dataset=f"csv:{tmp_path / 'd.csv'}", **fields))  # type: ignore[arg-type]
    assert np.array_equal(saved.train.x, table.train.x)
    assert saved.columns == table.columns
    assert saved.preparation.encodings[:3] == table.preparation.encodings[:3]  # times know their format in the file
    names = [[prepared.preparation.classes[code] for code in prepared.test.y] for prepared in (saved, table)]
    assert names[0] == names[1]
    assert saved.preparation.classes == FATES
    assert "1 row without a label in 'survived' is left out" in saved.notes
    with pytest.raises(Invalid, match="train, row 4, column 'age': the value is missing"):
        loaded(tmp_path / "d", target="survived", missing="refuse")


def test_parts_of_a_table_are_prepared_with_the_training_rows(datasets: Any, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"a": [0.0, 4.0, None, 2.0] * 3, "b": ["x", "y", "x", "y"] * 3, "label": [0, 1] * 6}
    )
    other = datasets.Dataset.from_dict({"a": [None, 100.0], "b": ["z", "y"], "label": [1, 0]})
    unlabeled = datasets.Dataset.from_dict({"a": [1.0], "b": ["x"]})
    datasets.DatasetDict(train=rows, test=unlabeled, validation=other).save_to_disk(str(tmp_path / "d"))
    prepared = loaded(tmp_path / "d", test_fraction=0, scaling="none")
    a, b = prepared.preparation.encodings
    assert (a.fill, b.categories) == (2.0, ("x", "y"))
    assert prepared.validation.x.tolist() == [[2, 1, 0, 0], [100, 0, 0, 1]]
    assert prepared.validation.y.tolist() == [1, 0]
    assert len(prepared.test) == 0
    assert "no test row has a label; they are not used" in prepared.notes


def test_images_without_a_label_are_left_out(datasets: Any, tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    pixels = [Image.new("RGB", (4, 4), (row, 0, 0)) for row in range(4)]
    train = datasets.Dataset.from_dict({"image": pixels, "label": [1, 0, -1, 1]}, features=features)
    test = datasets.Dataset.from_dict({"image": pixels, "label": [-1] * 4}, features=features)
    datasets.DatasetDict(train=train, test=test).save_to_disk(str(tmp_path / "d"))
    prepared = loaded(tmp_path / "d", model="mlp", test_fraction=0)
    assert prepared.preparation.classes == ("cat", "dog")
    assert prepared.train.y.tolist() == [1, 0, 1]
    assert prepared.train.x[:, 0, 0, 0].tolist() == [0, 1, 3]
    with pytest.raises(Invalid, match="applies to tables only"):
        loaded(tmp_path / "d", model="mlp", columns="label")


def test_folders_that_hold_no_dataset(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("none", "does not exist"),
        ("empty", "holds neither a dataset that save_to_disk wrote nor Parquet"),
    ):
        with pytest.raises(Invalid, match=says):
            loaded(tmp_path / name)


def test_without_the_package_the_error_names_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Invalid, match="pip install datasets"):
        loaded(tmp_path)
