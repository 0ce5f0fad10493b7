"""Datasets are split, scaled and weighed as scikit-learn does it, and prepared again bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.load import file_of, load
from epochtop.engine.data.prepare import prepare_dataset
from epochtop.engine.data.synthetic import sums
from epochtop.engine.inference.table_inputs import table_inputs
from epochtop.engine.protocol.spec import Invalid, RunSpec

SCALERS: dict[str, Any] = {"minmax": MinMaxScaler, "standard": StandardScaler}
BUNCHES = ("iris", "wine", "breast_cancer", "digits")


@pytest.mark.parametrize("scaling", ["minmax", "standard", "none"])
@pytest.mark.parametrize("dataset", [*BUNCHES, "sums"])
def test_built_in_rows_are_those_of_scikit_learn(dataset: str, scaling: str) -> None:
    prepared = load(RunSpec(dataset=dataset, scaling=scaling))
    bunch = sums() if dataset == "sums" else getattr(datasets, f"load_{dataset}")()
    raw, labels = (bunch.x, bunch.y) if isinstance(bunch, RawDataset) else (bunch.data, bunch.target)
    x, x_test, y, y_test = train_test_split(raw, labels, test_size=0.2, random_state=42)
    new = table_inputs(prepared.preparation, prepared.preparation.columns, x_test)
    if scaling != "none":
        scaler = SCALERS[scaling]().fit(x)
        x, x_test = scaler.transform(x), scaler.transform(x_test)
    for ours, theirs in ((prepared.train.x, x), (prepared.test.x, x_test), (new, x_test)):
        assert ours.dtype == np.float32
        assert ours.tobytes() == theirs.astype(np.float32).tobytes()
    assert prepared.train.y.tolist() == y.tolist()
    assert prepared.test.y.tolist() == y_test.tolist()
    assert len(prepared.validation) == 0


def test_digits_are_images_and_columns_have_names() -> None:
    assert load(RunSpec(dataset="digits")).preparation.image == (1, 8, 8)
    iris = load(RunSpec()).preparation
    assert iris.columns == tuple(datasets.load_iris().feature_names)
    assert iris.image is None


@pytest.mark.parametrize("scaling", ["minmax", "standard", "none"])
def test_new_rows_are_prepared_as_the_training_rows_whatever_the_order_of_columns(scaling: str) -> None:
    prepared = load(RunSpec(dataset="wine", scaling=scaling, test_fraction=0))
    columns = ["more", *reversed(prepared.preparation.columns)]
    rows = np.insert(datasets.load_wine().data[:, ::-1], 0, 7.0, axis=1)
    assert table_inputs(prepared.preparation, columns, rows).tobytes() == prepared.train.x.tobytes()


@pytest.mark.parametrize("scaling", ["minmax", "standard", "none"])
def test_rows_of_float32_are_prepared_from_float64_as_they_were_trained_on(scaling: str) -> None:
    exact = np.random.default_rng(1).standard_normal((500, 3)) * 100
    labels = np.arange(500) % 2
    raw = RawDataset(
        kind="table",
        x=exact.astype(np.float32),
        y=labels,
        loss="cross_entropy",
        classes=("a", "b"),
        columns=("u", "v", "w"),
    )
    prepared = prepare_dataset(raw, RunSpec(scaling=scaling, test_fraction=0))
    assert table_inputs(prepared.preparation, ("u", "v", "w"), exact).tobytes() == prepared.train.x.tobytes()


def test_columns_that_a_model_needs_are_asked_for_by_name() -> None:
    preparation = load(RunSpec(dataset="moons")).preparation
    with pytest.raises(Invalid, match=r"needs 2 columns; missing: 'x1'"):
        table_inputs(preparation, ["x0", "y"], np.zeros((1, 2)))
    with pytest.raises(Invalid, match="'x0' appears twice"):
        table_inputs(preparation, ["x0", "x1", "x0"], np.zeros((1, 3)))
    with pytest.raises(Invalid, match="row 2, column 'x1': inf is not a number"):
        table_inputs(preparation, ["x0", "x1"], np.array([[0, np.nan], [0, np.inf]]))


# --- the split ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [*BUNCHES, "sums"])
def test_validation_rows_are_stratified_and_leave_the_test_rows_alone(dataset: str) -> None:
    unsplit = load(RunSpec(dataset=dataset, scaling="none"))
    prepared = load(RunSpec(dataset=dataset, scaling="none", validation_fraction=0.25))
    assert prepared.test.x.tobytes() == unsplit.test.x.tobytes()
    together = np.concatenate((prepared.train.x, prepared.validation.x))
    assert sorted(map(bytes, together)) == sorted(map(bytes, unsplit.train.x))
    assert len(prepared.validation) == np.ceil(0.25 * len(unsplit.train))
    for label in np.unique(unsplit.train.y):
        share = (prepared.validation.y == label).mean() - (unsplit.train.y == label).mean()
        assert abs(share) * len(prepared.validation) <= 1
    assert prepared.notes == ()


def test_scaling_is_fitted_without_the_validation_rows() -> None:
    prepared = load(RunSpec(dataset="regression", noise=1, validation_fraction=0.5))
    assert prepared.train.x.min(axis=0) == pytest.approx(np.zeros(10), abs=1e-7)
    assert prepared.train.x.max(axis=0) == pytest.approx(np.ones(10))
    assert prepared.validation.x.min() < -1e-6 or prepared.validation.x.max() > 1 + 1e-6
    assert prepared.train.y.mean() == pytest.approx(0, abs=1e-6)
    assert prepared.train.y.std() == pytest.approx(1, abs=1e-6)


def _table(labels: list[int], classes: tuple[str, ...], **more: Any) -> RawDataset:
    x = np.arange(2 * len(labels), dtype=np.float64).reshape(-1, 2)
    return RawDataset(
        kind="table",
        x=x,
        y=np.array(labels, np.int64),
        loss="cross_entropy",
        classes=classes,
        columns=("a", "b"),
        **more,
    )


def test_a_class_of_one_row_keeps_the_validation_split_from_being_stratified() -> None:
    raw = _table([0, 1] * 10 + [2], ("u", "v", "w"))
    prepared = prepare_dataset(raw, RunSpec(test_fraction=0, validation_fraction=0.3))
    assert len(prepared.validation) == 7
    assert prepared.notes == ("the validation rows are not stratified by class: 'w' has only one row",)


@pytest.mark.parametrize("rows", [10, 40, 60])
def test_fixed_test_rows_are_used(rows: int) -> None:
    fixed = (np.full((rows, 2), 3.0), np.zeros(rows, np.int64))
    raw = _table([0, 1] * 10, ("u", "v"), test=fixed)
    prepared = prepare_dataset(raw, RunSpec(scaling="none"))
    assert (len(prepared.train), prepared.test.x.tolist(), prepared.notes) == (20, fixed[0].tolist(), ())
    noted = prepare_dataset(raw, RunSpec(scaling="none", test_fraction=0.5, validation_fraction=0.2))
    assert (len(noted.train), len(noted.validation), len(noted.test)) == (16, 4, rows)
    assert noted.notes == (f"the dataset has {rows} fixed test rows; test_fraction is ignored",)


def test_a_text_is_tested_on_its_end() -> None:
    x = np.arange(40, dtype=np.uint8).reshape(10, 4)
    raw = RawDataset(kind="text", x=x, y=x + 1, loss="next_character", vocabulary="".join(map(chr, range(65, 106))))
    prepared = prepare_dataset(raw, RunSpec(test_fraction=0.2, validation_fraction=0.25))
    assert [part.x[:, 0].tolist() for part in (prepared.train, prepared.validation, prepared.test)] == [
        [0, 4, 8, 12, 16, 20],
        [24, 28],
        [32, 36],
    ]
    assert (prepared.outputs, prepared.train.y.dtype) == (41, np.uint8)
    raw_text = RawDataset(
        kind="text", x=x, y=x + 1, loss="next_character", vocabulary=raw.vocabulary, test=(x + 40, x + 41)
    )
    fixed = prepare_dataset(raw_text, RunSpec(test_fraction=0.5))
    assert (len(fixed.train), fixed.test.x[0, 0], fixed.notes) == (10, 40, ())
    with pytest.raises(Invalid, match=r"0\.99 of 10 rows"):
        prepare_dataset(raw, RunSpec(test_fraction=0.99))


def test_images_stay_bytes_and_their_channels_are_measured() -> None:
    x = np.random.default_rng(1).integers(0, 256, (50, 3, 5, 7), dtype=np.uint8)
    x[:, 1] = 9
    raw = RawDataset(kind="image", x=x, y=np.arange(50) % 2, loss="cross_entropy", classes=("u", "v"))
    prepared = prepare_dataset(raw, RunSpec())
    train, _ = train_test_split(x, test_size=0.2, random_state=42)
    assert prepared.train.x.tobytes() == train.tobytes()
    pixels = train.transpose(0, 2, 3, 1).reshape(-1, 3) / 255
    assert prepared.preparation.pixel_mean == pytest.approx(pixels.mean(axis=0))
    assert prepared.preparation.pixel_std == pytest.approx([pixels[:, 0].std(), 1.0, pixels[:, 2].std()])
    assert prepared.preparation.image == (3, 5, 7)


# --- classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["breast_cancer", "sums", "wine"])
def test_class_weights_are_inverse_frequencies(dataset: str) -> None:
    prepared = load(RunSpec(dataset=dataset, class_weights=True))
    classes = np.unique(prepared.train.y)
    expected = compute_class_weight("balanced", classes=classes, y=prepared.train.y)
    assert prepared.class_weights == pytest.approx(expected)
    assert load(RunSpec(dataset=dataset)).class_weights == ()


def test_a_class_without_training_rows_is_noted() -> None:
    raw = _table([0, 0, 1, 0, 0, 1], ("u", "v", "w"))
    prepared = prepare_dataset(raw, RunSpec(test_fraction=0, class_weights=True))
    assert prepared.class_weights == pytest.approx((0.75, 1.5, 1.0))
    assert prepared.notes == ("no training row has the class 'w'",)


def test_numbers_have_no_class_weights(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b\n" + "".join(f"{row},{row}.5\n" for row in range(10)))
    with pytest.raises(Invalid) as caught:
        load(RunSpec(dataset=f"csv:{file}", target="b", class_weights=True))
    assert caught.value.field == "class_weights"
    assert "'b' is a number" in caught.value.message


# --- generated ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "classes", "features"), [
    ("moons", 2, 2), ("circles", 2, 2), ("blobs", 3, 2), ("spirals", 2, 2), ("regression", 0, 10),
])  # fmt: skip
def test_generated_rows_follow_samples_and_noise_but_not_the_seed(dataset: str, classes: int, features: int) -> None:
    spec = RunSpec(dataset=dataset, samples=300, noise=0.1, scaling="none")
    prepared, other_seed, louder = (
        load(RunSpec(**{**_fields(spec), **more})) for more in ({}, {"seed": 9}, {"noise": 5})
    )
    assert prepared.train.x.shape == (240, features)
    assert prepared.test.x.shape == (60, features)
    assert len(prepared.preparation.classes) == classes
    assert prepared.test.x.tobytes() == other_seed.test.x.tobytes()
    changed = (louder.test.y, prepared.test.y) if dataset == "regression" else (louder.test.x, prepared.test.x)
    assert not np.array_equal(*changed)


def _fields(spec: RunSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ("dataset", "samples", "noise", "scaling")}


def test_moons_are_scikit_learns() -> None:
    x, y = datasets.make_moons(200, noise=0.3, random_state=42)
    prepared = load(RunSpec(dataset="moons", samples=200, noise=0.3, scaling="none", test_fraction=0))
    assert prepared.train.x.tobytes() == x.astype(np.float32).tobytes()
    assert prepared.train.y.tolist() == y.tolist()


def test_the_arms_of_the_spirals_are_half_a_turn_apart() -> None:
    prepared = load(RunSpec(dataset="spirals", samples=400, noise=0, scaling="none", test_fraction=0))
    radius = np.hypot(*prepared.train.x.T)
    angle = np.arctan2(prepared.train.x[:, 1], prepared.train.x[:, 0])
    turns = (angle - radius - np.pi * prepared.train.y) / (2 * np.pi)
    assert turns == pytest.approx(np.round(turns), abs=1e-5)
    assert radius.max() <= 3 * np.pi


def test_files_are_named_absolutely(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for source in ("csv", "parquet", "npz", "npy", "images", "text"):
        assert file_of(RunSpec(dataset=f"{source}:a/b.x")) == tmp_path / "a/b.x"
    assert [file_of(RunSpec(dataset=name)) for name in ("iris", "moons", "mnist", "openml:iris")] == [None] * 4


def test_more_rows_than_a_list_should_hold_are_split_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are disjoint and complete, have the stated sizes, and do not depend on the order or the labels of the rows."""
    monkeypatch.setattr("epochtop.engine.data.splitting.MOST_LISTED_ROWS", 999)
    rows = np.arange(1000.0).reshape(-1, 1)
    raw = RawDataset(
        kind="table", x=rows, y=np.arange(1000) // 500, loss="cross_entropy", classes=("a", "b"), columns=("x",)
    )
    spec = RunSpec(dataset="iris", scaling="none", validation_fraction=0.25)
    prepared = prepare_dataset(raw, spec)
    parts = [part.x[:, 0].astype(int).tolist() for part in (prepared.train, prepared.validation, prepared.test)]
    assert [len(part) for part in parts] == [600, 200, 200]
    assert sorted(number for part in parts for number in part) == list(range(1000))
    assert 60 < sum(number < 500 for number in parts[2]) < 140  # 100 with a standard deviation of 6
    for part in (prepared.train, prepared.validation, prepared.test):
        assert (part.y == part.x[:, 0] // 500).all()
    again = prepare_dataset(raw, RunSpec(dataset="iris", scaling="none", validation_fraction=0.25, seed=5))
    assert again.test.x.tolist() == prepared.test.x.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("scaling", ["minmax", "standard", "none"])
def test_small_integers_are_scaled_as_numbers_of_64_bits(dtype: type, scaling: str) -> None:
    x = np.random.default_rng(0).integers(0, 200, (300, 3))
    y = np.arange(300) % 2
    spec = RunSpec(dataset="iris", scaling=scaling)  # type: ignore[arg-type]
    raws = [
        RawDataset(kind="table", x=table, y=y, loss="cross_entropy", classes=("a", "b"), columns=("a", "b", "c"))
        for table in (x.astype(dtype), x.astype(np.float64))
    ]
    small, wide = (prepare_dataset(raw, spec) for raw in raws)
    assert small.train.x.tobytes() == wide.train.x.tobytes()
    assert small.test.x.tobytes() == wide.test.x.tobytes()
    assert small.preparation == wide.preparation
