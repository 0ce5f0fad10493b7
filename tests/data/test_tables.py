"""Tables in files: each format is read as it was written, and what cannot be trained on is explained in one line."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochtop.engine.data.dataset import PreparedDataset
from epochtop.engine.data.load import load
from epochtop.engine.data.tables.csv_files import read as csvfile
from epochtop.engine.data.tables.csv_files.read import read_numbers
from epochtop.engine.protocol.spec import Invalid, RunSpec


def refused(path: Path, **fields: Any) -> Invalid:
    """Why the table at `path` is not taken; the message names it and is one line."""
    spec = RunSpec(**{"dataset": f"{path.suffix[1:]}:{path}", **fields})
    with pytest.raises(Invalid) as caught:
        load(spec)
    assert str(path) in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


# --- csv ---------------------------------------------------------------------------------------------------

WORDS = "a,city,b,name,kind\n1,Rome,2,Ann,x\n2,Oslo,3,Bob,y\n3,4,5,Eve,x\n"


def test_selected_columns_are_read_whatever_the_others_hold(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(WORDS)
    assert read_numbers(file, ["b", "a"]).tolist() == [[2, 1], [3, 2], [5, 3]]
    with pytest.raises(Invalid, match="has no column 'c'"):
        read_numbers(file, ["a", "c"])
    with pytest.raises(Invalid, match=r"line 2, column 'city': 'Rome' is not a number"):
        read_numbers(file, ["a", "city"])


CELLS = st.one_of(
    st.floats(allow_nan=True).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.text(max_size=6),
    st.sampled_from(["", "NA", "1e999", "1e300", "-1e300", "5e-324", ".5", "1_0", '"', "\x00", "١", "null", "[1]"]),
)
GOOD_CELLS = st.floats(allow_nan=False, allow_infinity=False).map(repr)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, str]:
    """A CSV file as some program or no program may have written it, and the column to be learned."""
    width = draw(st.integers(1, 5))
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=width, max_size=width))
    cells = draw(st.sampled_from([GOOD_CELLS, st.integers(0, 3).map(str), CELLS]))
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=30))
    if draw(st.booleans()) and rows:
        draw(st.sampled_from(rows)).append("1")
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=draw(st.sampled_from(",;\t| ")),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    writer.writerows([names, *rows])
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16"]))
    content = text.getvalue().encode(encoding, "replace")
    return content + draw(st.one_of(st.just(b""), st.binary(max_size=5))), draw(st.sampled_from(names)).strip()


@settings(
    max_examples=3 * settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    file=files(),
    large=st.sampled_from([0, 10**9]),
    scaling=st.sampled_from(["minmax", "standard", "none"]),
    validation=st.sampled_from([0.0, 0.3]),
    weights=st.booleans(),
)
def test_any_file_is_loaded_or_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: tuple[bytes, str],
    large: int,
    scaling: Any,
    validation: float,
    weights: bool,
) -> None:
    path = tmp_path / "any.csv"
    content, target = file
    path.write_bytes(content)
    monkeypatch.setattr(csvfile, "LARGE_BYTES", large)
    spec = RunSpec(
        dataset=f"csv:{path}",
        target=target,
        scaling=scaling,
        validation_fraction=validation,
        class_weights=weights,
    )
    prepared = _loaded(spec)
    if isinstance(prepared, Invalid):
        assert str(path) in prepared.message
        assert len(prepared.message.splitlines()) == 1
    else:
        _check(prepared)


def _loaded(spec: RunSpec) -> PreparedDataset | Invalid:
    try:
        return load(spec)
    except Invalid as error:
        return error


def _check(prepared: PreparedDataset) -> None:
    """What every split of a table must be."""
    for part in (prepared.train, prepared.validation, prepared.test):
        assert len(part.x) == len(part.y)
        assert part.x.dtype == np.float32
        assert np.isfinite(part.x).all()
        assert np.isfinite(part.y).all()
    assert len(prepared.train) > 0
    assert prepared.outputs == max(1, len(prepared.preparation.classes))


# --- npy and npz -------------------------------------------------------------------------------------------

X = np.arange(60, dtype=np.float64).reshape(20, 3) ** 1.5
Y = np.arange(20) % 2


def test_the_last_column_of_an_npy_file_is_the_label(tmp_path: Path) -> None:
    file = tmp_path / "table.npy"
    np.save(file, np.column_stack((X, Y)))
    prepared = load(RunSpec(dataset=f"npy:{file}", test_fraction=0, scaling="none"))
    assert prepared.train.x.tobytes() == X.astype(np.float32).tobytes()
    assert (prepared.train.y.tolist(), prepared.preparation.classes) == (Y.tolist(), ("0", "1"))
    assert prepared.preparation.columns == ("x0", "x1", "x2")


@pytest.mark.parametrize("labels", [Y, np.array(["no", "yes"])[Y], np.array([b"no", b"yes"])[Y], Y == 1, Y[:, None]])
def test_labels_of_an_npz_file_may_be_of_any_kind(tmp_path: Path, labels: Any) -> None:
    file = tmp_path / "table.npz"
    np.savez(file, x=X.astype(np.int16), y=labels)
    prepared = load(RunSpec(dataset=f"npz:{file}", test_fraction=0, scaling="none"))
    assert prepared.train.x.tolist() == X.astype(np.int16).tolist()
    assert prepared.train.y.tolist() == Y.tolist()
    assert prepared.outputs == 2


def test_an_npz_file_may_bring_its_own_test_rows(tmp_path: Path) -> None:
    file = tmp_path / "table.npz"
    np.savez_compressed(file, x_train=X[:15], y_train=Y[:15] / 3, x_test=X[15:], y_test=Y[15:] / 3)
    prepared = load(RunSpec(dataset=f"npz:{file}", scaling="none"))
    assert prepared.test.x.tobytes() == X[15:].astype(np.float32).tobytes()
    restored = prepared.test.y * prepared.preparation.target_spread + prepared.preparation.target_center
    assert restored == pytest.approx(Y[15:] / 3, abs=1e-6)


@pytest.mark.parametrize(("shape", "image"), [
    ((20, 3, 8, 6), (3, 8, 6)), ((20, 8, 6, 3), (3, 8, 6)), ((20, 8, 6, 1), (1, 8, 6)), ((20, 8, 6), (1, 8, 6)),
])  # fmt: skip
def test_bytes_of_four_dimensions_are_images(tmp_path: Path, shape: tuple[int, ...], image: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    file = tmp_path / "images.npz"
    np.savez(file, x=pixels, y=Y)
    prepared = load(RunSpec(dataset=f"npz:{file}", test_fraction=0, model="cnn"))
    assert (prepared.preparation.kind, prepared.preparation.image, prepared.train.x.dtype) == ("image", image, np.uint8)
    assert prepared.train.x.shape == (20, *image)
    assert prepared.train.x.sum(axis=(0, 2, 3)).tolist() == (
        pixels.sum(axis=tuple(d for d in range(4) if d != shape.index(3))).tolist() if 3 in shape else [pixels.sum()]
    )


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "other names": ({"a": X, "b": Y}, "holds a float64 (20, 3), b int64 (20,); name them x and y"),
    "two rows": ({"data": X, "images": X, "y": Y}, "data and images may be the rows; name one of them x"),
    "too few labels": ({"x": X, "y": Y[:9]}, "x has 20 rows, y has 9"),
    "objects": ({"x": X, "y": np.array([{}] * 20)}, "Python objects"),
    "five dimensions": ({"x": np.zeros((20, 2, 2, 2, 2)), "y": Y}, "numbers of the shape (rows, features)"),
    "texts": ({"x": np.full((20, 2), "a"), "y": Y}, "numbers of the shape (rows, features)"),
    "channels": ({"x": np.zeros((20, 5, 4, 4), np.uint8), "y": Y}, "1 or 3 channels"),
    "not a number": ({"x": np.where(X[7, 1] == X, np.nan, X), "y": Y}, "x, row 7, column 1: nan"),
    "infinite label": ({"x": X, "y": np.where(Y == 1, np.inf, 0.0)}, "y, row 1: is not a finite number"),
    "masks": ({"x": X, "y": np.zeros((20, 4, 4))}, "other labels need a custom task"),
    "one class": ({"x": X, "y": Y * 0}, "only one class"),
    "other test rows": (
        {"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y},
        "rows of x_train have the shape (3,), rows of x_test (2,)",
    ),
    "nothing": ({}, "holds nothing"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_cannot_be_trained_on(tmp_path: Path, name: str) -> None:
    arrays, says = BAD_ARRAYS[name]
    file = tmp_path / "table.npz"
    np.savez(file, **arrays)
    assert says in refused(file).message


@pytest.mark.parametrize("suffix", ["npz", "npy", "parquet", "csv"])
def test_files_that_are_damaged_or_not_there(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"table.{suffix}"
    fields = {"target": "label"} if suffix in ("parquet", "csv") else {}
    assert "there is no file" in refused(file, **fields).message
    archive = io.BytesIO()
    if suffix == "npy":
        np.save(archive, X)
    else:
        np.savez_compressed(archive, x=X, y=Y)
    for content in (b"", b"\xff\x00", archive.getvalue()[:-100], archive.getvalue()[:150], archive.getvalue()[50:]):
        file.write_bytes(content)
        assert refused(file, **fields).field == "dataset"
    file.unlink()
    file.mkdir()
    assert "is a folder" in refused(file, **fields).message


# --- parquet -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["no", "yes"] * 10, [0, 1] * 10, [False, True] * 10])
def test_a_parquet_file_is_read_as_it_was_written(tmp_path: Path, labels: list[Any]) -> None:
    file = tmp_path / "table.parquet"
    columns = {"a": X[:, 0], "kind": labels, "b": X[:, 1].astype(np.float32), "c": np.arange(20), "d": Y == 1}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    prepared = load(RunSpec(dataset=f"parquet:{file}", target="kind", test_fraction=0, scaling="none"))
    expected = np.column_stack([columns[name] for name in "abcd"]).astype(np.float32)
    assert prepared.train.x.tolist() == expected.tolist()
    assert prepared.preparation.columns == ("a", "b", "c", "d")
    assert prepared.preparation.classes == tuple(str(label) for label in labels[:2])
    assert prepared.train.y.tolist() == [0, 1] * 10


def test_a_parquet_file_that_cannot_be_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": X[:, 0], "b": ["u", "v"] * 10, "y": Y}), file)
    assert refused(file, target="z").message.endswith("there is no column 'z'; the columns are a, b, y")
    pyarrow.parquet.write_table(pyarrow.table({"a": np.where(X[:, 0] > 50, np.inf, 0), "y": Y}), file)
    assert "column 'a': inf is not a finite number" in refused(file, target="y").message


def test_parquet_without_pyarrow_names_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'epochtop[parquet]'" in refused(tmp_path / "table.parquet", target="y").message
