"""Arrays as people save them: names, shapes and labels decide what is learned; expected values come from numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from epochtop.engine.data.arrays.files import read_npz
from epochtop.engine.data.arrays.names import pairs_of
from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.load import load
from epochtop.engine.protocol.spec import Invalid, RunSpec

CHANCE = np.random.default_rng(6)
Y = np.arange(30) % 3


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


NAMES = [
    ("x", "y"), ("X", "Y"), ("data", "target"), ("data", "labels"), ("images", "labels"), ("features", "targets"),
    ("arr_0", "arr_1"), ("x_train", "y_train"), ("Xtrain", "ytrain"), ("trainX", "trainY"), ("train_images", "train_labels"),
    ("inputs", "outputs"), ("training-data", "training-labels"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "y"), NAMES)
def test_common_names_of_rows_and_labels(x: str, y: str) -> None:
    (pair,) = pairs_of(Path("a.npz"), {y: "", x: "", **({} if x == "arr_0" else {"class_names": ""})})
    assert (pair.part, pair.x, pair.y) == ("train", x, y)


def test_the_arrays_of_medmnist(tmp_path: Path) -> None:
    arrays = {}
    for part, rows in (("train", 30), ("val", 9), ("test", 12)):
        arrays[f"{part}_images"] = CHANCE.integers(0, 256, (rows, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(rows) % 3)[:, None].astype(np.uint8)
    raw = read_npz(saved(tmp_path, **arrays))
    assert (raw.kind, raw.classes, raw.y.tolist()) == ("image", ("0", "1", "2"), Y.tolist())
    assert [(fact.name, fact.treatment) for fact in raw.column_facts] == [
        ("train_images", "28×28 pixels, RGB, each channel standardized"),
        ("train_labels", "3 classes"),
    ]
    assert raw.validation is not None
    assert raw.test is not None
    assert np.array_equal(raw.validation[0], arrays["val_images"].transpose(0, 3, 1, 2))
    assert (raw.test[0].shape, raw.test[1].tolist()) == ((12, 3, 28, 28), (np.arange(12) % 3).tolist())


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((30,), "table", (1,)), ((30, 5), "table", (5,)), ((30, 12, 4), "series", (12, 4)), ((30, 8, 8), "series", (8, 8)),
        ((30, 3, 8, 9), "image", (3, 8, 9)), ((30, 8, 9, 3), "image", (3, 8, 9)), ((30, 13, 16, 16), "image", (13, 16, 16)),
        ((30, 16, 16, 4), "image", (4, 16, 16)),
    ],
)  # fmt: skip
def test_the_shape_decides_what_rows_are(
    tmp_path: Path, shape: tuple[int, ...], kind: str, expected: tuple[int, ...]
) -> None:
    raw = read_npz(saved(tmp_path, x=CHANCE.normal(size=shape), y=Y))
    assert (raw.kind, raw.x.shape[1:]) == (kind, expected)
    assert raw.x.dtype == (np.float32 if kind == "image" else np.float64)


@pytest.mark.parametrize(("largest", "dtype"), [(1, np.float32), (255, np.float64), (255, np.int64)])
def test_squares_in_the_range_of_pixels_are_gray_images(tmp_path: Path, largest: int, dtype: type) -> None:
    pixels = (CHANCE.integers(0, 2, (30, 8, 8)) * largest).astype(dtype)
    path = saved(tmp_path, x=pixels, y=Y)
    raw = read_npz(path)
    assert (raw.kind, raw.x.shape, raw.x.dtype) == (
        "image",
        (30, 1, 8, 8),
        np.uint8 if dtype is np.int64 else np.float32,
    )
    assert read_npz(path, model="lstm").kind == "series"


def test_float_images_are_standardized_in_their_own_range(tmp_path: Path) -> None:
    pixels = CHANCE.normal(1000, 0.5, (30, 3, 8, 8))
    prepared = load(RunSpec(dataset=f"npz:{saved(tmp_path, x=pixels, y=Y)}", test_fraction=0))
    kept = prepared.preparation
    assert kept.pixel_mean == pytest.approx(pixels.astype(np.float32).mean(axis=(0, 2, 3), dtype=np.float64))
    assert kept.pixel_std == pytest.approx(pixels.astype(np.float32).std(axis=(0, 2, 3), dtype=np.float64), rel=1e-5)
    assert (kept.pixel_max, prepared.train.x.tolist()) == (1.0, pixels.astype(np.float32).tolist())


def test_features_of_series_are_scaled_over_all_time_steps(tmp_path: Path) -> None:
    x = CHANCE.normal(5, 3, (30, 7, 2))
    prepared = load(RunSpec(dataset=f"npz:{saved(tmp_path, x=x, y=Y)}", model="lstm", scaling="standard"))
    train, test = train_test_split(x, test_size=0.2, random_state=42)
    scaler = StandardScaler().fit(train.reshape(-1, 2))
    np.testing.assert_allclose(prepared.test.x, scaler.transform(test.reshape(-1, 2)).reshape(test.shape), rtol=1e-5)
    assert prepared.preparation.series == (7, 2)
    assert prepared.columns[0].treatment == "7 time steps of 2 features, each scaled (standard)"


# --- labels ------------------------------------------------------------------------------------------------

NUMBERS = CHANCE.normal(size=(30, 2)) * [1, 100] + [0, 7]
SOME = np.repeat([[0, 1, 1], [1, 0, 0], [0, 0, 0]], 10, axis=0)


def labels(folder: Path, y: Any, problem: Any = "auto") -> RawDataset:
    return read_npz(saved(folder, x=CHANCE.normal(size=(30, 4)), y=y), problem)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_one_hot_labels_are_classes(tmp_path: Path, dtype: type) -> None:
    raw = labels(tmp_path, np.eye(3, dtype=dtype)[Y])
    assert (raw.loss, raw.classes, raw.y.tolist()) == ("cross_entropy", ("0", "1", "2"), Y.tolist())


def test_several_labels_per_row_are_multi_label(tmp_path: Path) -> None:
    raw = labels(tmp_path, SOME)
    assert (raw.loss, raw.targets, raw.classes) == ("binary_cross_entropy", ("y0", "y1", "y2"), ())
    assert raw.y.tolist() == SOME.tolist()
    one_hot = np.eye(3)[Y]
    assert labels(tmp_path, one_hot, "multi-label").targets == ("y0", "y1", "y2")
    assert labels(tmp_path, SOME, "regression").loss == "mean_squared_error"
    for y, problem in ((SOME, "classification"), (NUMBERS, "multi-label"), (Y, "multi-label")):
        with pytest.raises(Invalid) as caught:
            labels(tmp_path, y, problem)
        assert caught.value.field == "problem"


def test_several_numbers_are_standardized_one_by_one(tmp_path: Path) -> None:
    path = saved(tmp_path, x=CHANCE.normal(size=(30, 4)), y=NUMBERS)
    prepared = load(RunSpec(dataset=f"npz:{path}", test_fraction=0))
    np.testing.assert_allclose(prepared.train.y, StandardScaler().fit_transform(NUMBERS), rtol=1e-5)
    assert (prepared.outputs, prepared.preparation.targets) == (2, ("y0", "y1"))
    assert prepared.preparation.target_centers == pytest.approx(NUMBERS.mean(axis=0))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [(6, b"\x40\x00", "version 6.4"), (0, b"PK\x00\x00", "central directory")],
    ids=["a later version of zip", "no directory"],
)
def test_an_archive_with_a_damaged_directory_is_refused(place: int, value: bytes, reason: str, tmp_path: Path) -> None:
    """The directory at the end of a zip file: signature (bytes 0 to 3), then versions."""
    path = saved(tmp_path, x=np.zeros((8, 2), np.float32), y=np.arange(8) % 2)
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02") + place
    path.write_bytes(content[:at] + value + content[at + len(value) :])
    with pytest.raises(Invalid, match=reason) as refusal:
        read_npz(path)
    assert str(path) in refusal.value.message
