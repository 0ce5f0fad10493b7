"""Datasets that the real package saves become rows; expected values are those that were saved."""

from __future__ import annotations

import sys
import warnings
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
    with pytest.raises(Invalid, match=r"has no column 'b'; its columns are 'a', 'name', 'target'"):
        loaded(tmp_path / "d", target="b")


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
