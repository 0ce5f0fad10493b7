"""Columns that only number the rows are left out or reported, and so are a lost first row and unused arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from epochtop.engine.data.dataset import PreparedDataset
from epochtop.engine.data.load import load
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.trained_runs import write_table

ROWS = 40
NOISE = np.random.default_rng(1).random(ROWS).round(3)
KINDS = [["x", "y"][row // 20] for row in range(ROWS)]
"""Labels of a table that is sorted by class."""
MIXED = [["x", "y"][row % 2] for row in range(ROWS)]


def loaded(file: Path, **fields: Any) -> PreparedDataset:
    spec = {"target": "kind", "test_fraction": 0.0, "scaling": "none", **fields}
    return load(RunSpec(dataset=f"{file.suffix[1:]}:{file}", **spec))


def features_of(prepared: PreparedDataset) -> tuple[str, ...]:
    """The feature columns; their values must be those of the table."""
    assert prepared.train.x[:, -1].tolist() == NOISE.astype(np.float32).tolist()
    assert prepared.train.x.shape[1] == len(prepared.preparation.columns)
    return prepared.preparation.columns


# --- columns of row numbers --------------------------------------------------------------------------------

SHUFFLED = np.random.default_rng(2).permutation(ROWS).tolist()


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
@pytest.mark.parametrize("numbers", [[*range(ROWS)], [*range(1, ROWS + 1)], [*range(0, 3 * ROWS, 3)], SHUFFLED])
def test_an_unnamed_column_of_row_numbers_is_left_out(tmp_path: Path, name: str, numbers: list[int]) -> None:
    rows = list(zip(numbers, NOISE.tolist(), KINDS, strict=True))
    prepared = loaded(write_table(tmp_path / "t.csv", (name, "noise", "kind"), rows))
    assert features_of(prepared) == ("noise",)
    assert any("unnamed column" in note and "left out" in note for note in prepared.notes)


PIECES = [*range(15), *range(25)]
"""Row numbers of two tables, one below the other."""


@pytest.mark.parametrize(
    "names", [("", "Unnamed: 0"), ("", ""), ("Unnamed: 0.1", "Unnamed: 0"), ("Unnamed: 0_x", "Unnamed: 0_y")]
)
def test_all_row_numbers_of_a_table_that_was_saved_twice_are_left_out(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = list(zip(PIECES, SHUFFLED, NOISE.tolist(), KINDS, strict=True))
    prepared = loaded(write_table(tmp_path / "t.csv", (*names, "noise", "kind"), rows))
    assert features_of(prepared) == ("noise",)
    assert sum("unnamed column" in note for note in prepared.notes) == 2


def test_old_row_numbers_may_be_anywhere(tmp_path: Path) -> None:
    rows = list(zip(KINDS, SHUFFLED, NOISE.tolist(), strict=True))
    prepared = loaded(write_table(tmp_path / "t.csv", ("kind", "Unnamed: 0", "noise"), rows))
    assert features_of(prepared) == ("noise",)
    data = list(zip(NOISE.tolist(), SHUFFLED, NOISE.tolist(), KINDS, strict=True))  # a column of data has no name
    prepared = loaded(write_table(tmp_path / "t.csv", ("other", "", "noise", "kind"), data))
    assert features_of(prepared) == ("other", "Unnamed: 1", "noise")


def test_other_unnamed_columns_and_named_counters_stay(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 5, ROWS).tolist()
    rows = list(zip(values, NOISE.tolist(), KINDS, strict=True))
    assert features_of(loaded(write_table(tmp_path / "t.csv", ("", "noise", "kind"), rows))) == ("", "noise")
    rows = list(zip(range(ROWS), NOISE.tolist(), MIXED, strict=True))
    prepared = loaded(write_table(tmp_path / "t.csv", ("week", "noise", "kind"), rows))
    assert features_of(prepared) == ("week", "noise")
    assert not any("gives the class away" in note for note in prepared.notes)


@pytest.mark.parametrize("numbers", [range(ROWS), range(1000, 1000 + 7 * ROWS, 7), range(ROWS, 0, -1)])
def test_a_counter_of_a_table_sorted_by_class_is_reported(tmp_path: Path, numbers: range) -> None:
    rows = list(zip(numbers, NOISE.tolist(), KINDS, strict=True))
    prepared = loaded(write_table(tmp_path / "t.csv", ("week", "noise", "kind"), rows))
    assert features_of(prepared) == ("week", "noise")
    assert [note for note in prepared.notes if "gives the class away" in note and "'week'" in note]


COUNTS = list(range(1, ROWS + 1))
IDENTIFIERS: dict[str, tuple[str, list[float]]] = {
    "counter": ("PassengerId", COUNTS),
    "shuffled": ("user_id", SHUFFLED),
    "hospital number": ("ID", [842302 + 131 * (row * 7 % ROWS) for row in range(ROWS)]),
    "Kaggle's": ("Id", COUNTS),
    "with a blank": ("Customer ID", COUNTS),
    "index": ("index", COUNTS),
    "row": ("row_nr", COUNTS),
    "number sign": ("#", COUNTS),
}
OTHERS: dict[str, tuple[str, list[float]]] = {
    "another name": ("week", COUNTS),
    "id inside a word": ("grid", COUNTS),
    "a measured index": ("price_index", COUNTS),
    "repeated": ("id", [*COUNTS[1:], 2]),
    "fractions": ("id", [row / 2 for row in range(ROWS)]),
}


@pytest.mark.parametrize("case", [*IDENTIFIERS, *OTHERS])
def test_numbers_that_are_called_an_id_and_differ_in_every_row_are_left_out(tmp_path: Path, case: str) -> None:
    name, numbers = (IDENTIFIERS | OTHERS)[case]
    file = write_table(
        tmp_path / "t.csv", (name, "noise", "kind"), list(zip(numbers, NOISE.tolist(), MIXED, strict=True))
    )
    prepared = loaded(file)
    assert features_of(prepared) == (("noise",) if case in IDENTIFIERS else (name, "noise"))
    (fact,) = [fact for fact in prepared.columns if fact.name == name]
    assert (fact.kind == "identifier") == ("left out" in fact.treatment) == (case in IDENTIFIERS)
    assert features_of(loaded(file, kinds=f"{name}=number")) == (name, "noise")
    assert features_of(loaded(file, columns=f"{name},noise")) == (name, "noise")


def test_sorted_tables_without_a_counter_are_not_reported() -> None:
    assert load(RunSpec()).notes == ()
    assert load(RunSpec(dataset="wine")).notes == ()


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("index", ["__index_level_0__", "passenger"])
def test_the_index_of_a_pandas_table_is_left_out(tmp_path: Path, index: str, metadata: bool) -> None:
    file = tmp_path / "t.parquet"
    table = pyarrow.table({"noise": NOISE, "kind": KINDS, index: np.arange(ROWS)})
    if metadata:  # what pandas writes
        table = table.replace_schema_metadata({"pandas": json.dumps({"index_columns": [index], "columns": []})})
    pyarrow.parquet.write_table(table, file)
    prepared = loaded(file)
    if metadata or index.startswith("__"):
        assert features_of(prepared) == ("noise",)
        assert any(repr(index) in note and "left out" in note for note in prepared.notes)
    else:
        assert prepared.preparation.columns == ("noise", index)
        assert any(repr(index) in note and "gives the class away" in note for note in prepared.notes)


@pytest.mark.parametrize(
    "metadata", [b"", b"no json", b"[1]", b'{"index_columns": 7}', b'{"index_columns": [{"kind": "range"}]}']
)
def test_odd_metadata_is_ignored(tmp_path: Path, metadata: bytes) -> None:
    file = tmp_path / "t.parquet"
    table = pyarrow.table({"kind": MIXED, "noise": NOISE}).replace_schema_metadata({b"pandas": metadata})
    pyarrow.parquet.write_table(table, file)
    assert features_of(loaded(file)) == ("noise",)


def test_an_index_may_be_the_target_but_not_the_only_feature(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"noise": NOISE, "__index_level_0__": KINDS}), file)
    assert features_of(loaded(file, target="__index_level_0__")) == ("noise",)
    pyarrow.parquet.write_table(pyarrow.table({"kind": KINDS, "__index_level_0__": np.arange(ROWS)}), file)
    with pytest.raises(Invalid, match="no feature columns except its index"):
        loaded(file)


# --- a first row that is lost ------------------------------------------------------------------------------


def _header_note(folder: Path, header: str) -> bool:
    """Whether a first row is called doubtful, above whole numbers and kinds that are x and y."""
    names = header.split(",")
    file = folder / "t.csv"
    body = "".join(",".join([str(number)] * (len(names) - 1) + [kind]) + "\n" for number, kind in enumerate(MIXED))
    file.write_text(f"{header}\n{body}")
    return any("looks like data" in note for note in loaded(file, target=names[-1]).notes)


@pytest.mark.parametrize("header", ["4.4,3.3,1.4,0.5,Iris-a", "7,cat", "5,1,9,cat", "1e3,cat"])
def test_a_first_row_that_looks_like_data_is_reported(tmp_path: Path, header: str) -> None:
    assert _header_note(tmp_path, header)


@pytest.mark.parametrize(
    "header", ["a,b,kind", "0,1,2,3,label", "2019,2020,2021,kind", "1,kind", "0,kind", "10,20,30,kind"]
)
def test_names_of_numbered_columns_are_not_data(tmp_path: Path, header: str) -> None:
    assert not _header_note(tmp_path, header)


def test_a_table_without_a_header_says_so_when_its_target_is_not_found(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("4.4,3.3,Iris-a\n6.5,2.9,Iris-b\n")
    with pytest.raises(
        Invalid, match="the columns are c1, c2, c3; line 1 looks like data, so the file is read without"
    ):
        loaded(file, target="species")
    file.write_text("4.4,3.3,Iris-a\n" + "6.5,2.9,Iris-b\n" * 3)  # a name above equal names may be a header
    with pytest.raises(Invalid, match="may have no header"):
        loaded(file, target="species")
    file.write_text("4.4,4.4,Iris-a\n" + "6.5,2.9,Iris-b\n" * 3)
    with pytest.raises(Invalid, match="add a header row"):
        loaded(file, target="Iris-a")


# --- arrays ------------------------------------------------------------------------------------------------

X = np.random.default_rng(4).random((60, 3)).astype(np.float32)
Y = np.arange(60) % 3


@pytest.mark.parametrize("names", [("x_val", "y_val"), ("x_valid", "y_valid"), ("x_validation", "y_validation")])
@pytest.mark.parametrize("base", ["", "_train"])
@pytest.mark.parametrize("test", [False, True])
def test_validation_rows_of_an_npz_file_are_used(tmp_path: Path, names: tuple[str, str], base: str, test: bool) -> None:
    file = tmp_path / "t.npz"
    arrays = {f"x{base}": X[:30], f"y{base}": Y[:30], names[0]: X[30:45], names[1]: Y[30:45]}
    np.savez(file, **arrays, **({"x_test": X[45:], "y_test": Y[45:]} if test else {}))
    prepared = loaded(file, target="", test_fraction=0.2)
    assert prepared.validation.x.tolist() == X[30:45].tolist()
    assert prepared.validation.y.tolist() == Y[30:45].tolist()
    assert (len(prepared.train), len(prepared.test)) == ((30, 15) if test else (24, 6))
    if test:
        assert prepared.test.x.tolist() == X[45:].tolist()


def test_scaling_is_fitted_on_the_training_rows_of_an_npz_file(tmp_path: Path) -> None:
    file = tmp_path / "t.npz"
    np.savez(file, x=X[:30], y=Y[:30], x_val=X[30:] * 10, y_val=Y[30:])
    prepared = loaded(file, target="", scaling="minmax")
    low, high = X[:30].min(axis=0), X[:30].max(axis=0)
    np.testing.assert_allclose(prepared.validation.x, (X[30:] * 10 - low) / (high - low), rtol=1e-4)


def test_a_class_has_one_code_in_all_parts(tmp_path: Path) -> None:
    file = tmp_path / "t.npz"
    np.savez(file, x=X[:30], y=np.array(["a", "c"])[Y[:30] % 2], x_val=X[30:], y_val=np.array(["b", "c"])[Y[30:] % 2])
    prepared = loaded(file, target="")
    assert prepared.preparation.classes == ("a", "b", "c")
    assert [prepared.preparation.classes[code] for code in prepared.validation.y] == [["b", "c"][y % 2] for y in Y[30:]]


def test_fixed_validation_rows_replace_the_fraction_and_unused_arrays_are_named(tmp_path: Path) -> None:
    file = tmp_path / "t.npz"
    np.savez(file, x=X[:30], y=Y[:30], x_val=X[30:], y_val=Y[30:], x_extra=X, ids=Y)
    prepared = loaded(file, target="", validation_fraction=0.5)
    assert (len(prepared.train), len(prepared.validation)) == (30, 30)
    assert any("validation_fraction is ignored" in note for note in prepared.notes)
    assert any("x_extra, ids" in note and "not used" in note for note in prepared.notes)


def test_validation_rows_must_fit_the_training_rows(tmp_path: Path) -> None:
    file = tmp_path / "t.npz"
    np.savez(file, x=X[:30], y=Y[:30], x_val=X[30:, :2], y_val=Y[30:])
    with pytest.raises(Invalid, match=r"rows of x have the shape \(3,\), rows of x_val \(2,\)"):
        loaded(file, target="")
    np.savez(file, x=X[:30], y=Y[:30], x_val=X[30:], y_val=Y[30:40])
    with pytest.raises(Invalid, match="x_val has 30 rows, y_val has 10"):
        loaded(file, target="")
