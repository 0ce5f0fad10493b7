"""Columns are encoded as scikit-learn's ColumnTransformer does it, fitted on the training rows, and again for new rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from epochtop.engine.data.columns.assembly import dataset_of
from epochtop.engine.data.columns.fitting import embedding_size
from epochtop.engine.data.columns.new_rows import new_rows, types_for
from epochtop.engine.data.columns.selection import ColumnSelection
from epochtop.engine.data.dataset import Preparation, PreparedDataset
from epochtop.engine.data.prepare import prepare_dataset
from epochtop.engine.data.tables.column import Column, NumberColumn, Table, TextColumn, TimeColumn
from epochtop.engine.protocol.spec import Invalid, RunSpec

ROWS = 200
DRAW = np.random.default_rng(11)
AGE = np.where(DRAW.random(ROWS) < 0.1, np.nan, DRAW.normal(40, 10, ROWS).round(1))
CITY = DRAW.choice(["Rome", "Oslo", "Bern", ""], ROWS, p=[0.5, 0.3, 0.1, 0.1])
PAID = DRAW.gamma(2, 100, ROWS)
KIND = DRAW.choice(["no", "yes"], ROWS)


def texts(name: str, cells: Sequence[str]) -> TextColumn:
    """A column of texts; an empty one is missing."""
    distinct = tuple(dict.fromkeys(cell for cell in cells if cell))
    codes = np.array([distinct.index(cell) if cell else -1 for cell in cells], dtype=np.int32)
    return TextColumn(name, codes, distinct)


def table(*columns: Column) -> Table:
    rows = len(columns[0].codes if isinstance(columns[0], TextColumn) else columns[0].values)
    return Table("t.csv", columns, range(2, rows + 2))


def prepared(source: Table, **fields: Any) -> PreparedDataset:
    """The table as a run prepares it, with the target `kind` unless another is named."""
    spec = RunSpec(**{"dataset": "csv:t.csv", "target": "kind", **fields})
    selection = ColumnSelection(spec)
    types = selection(source.names)
    read = [column for column, kind in zip(source.columns, types, strict=True) if kind != "skip"]
    return prepare_dataset(dataset_of(without_skipped(source, read), selection), spec)


def without_skipped(source: Table, columns: Sequence[Column]) -> Table:
    """The table without its skipped columns, as a reader leaves it."""
    return Table(source.source, tuple(columns), source.lines)


MIXED = table(
    NumberColumn("age", AGE), texts("city", CITY.tolist()), NumberColumn("paid", PAID), texts("kind", KIND.tolist())
)


def expected(scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows by scikit-learn: imputed and scaled numbers, one-hot categories, indicators above 1 %."""
    scaler = MinMaxScaler() if scaling == "minmax" else StandardScaler()
    indicator = MissingIndicator(features="all")
    raw = np.empty((ROWS, 3), dtype=object)
    raw[:, 0], raw[:, 1], raw[:, 2] = AGE, np.where(CITY == "", None, CITY), PAID
    train, test = train_test_split(raw, test_size=0.2, random_state=42)
    encoder = ColumnTransformer([
        ("age", make_pipeline(SimpleImputer(strategy="median"), scaler), [0]),
        ("age gaps", indicator, [0]),
        ("city", make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=None), OneHotEncoder()), [1]),
        ("city gaps", MissingIndicator(features="all", missing_values=None), [1]),
        ("paid", MinMaxScaler() if scaling == "minmax" else StandardScaler(), [2]),
    ], sparse_threshold=0)  # fmt: skip
    return encoder.fit_transform(train).astype(np.float32), encoder.transform(test).astype(np.float32)


@pytest.mark.parametrize("scaling", ["minmax", "standard"])
def test_columns_are_encoded_as_by_a_column_transformer(scaling: str) -> None:
    ours = prepared(MIXED, scaling=scaling)
    train, test = expected(scaling)
    np.testing.assert_array_equal(ours.train.x, train)
    np.testing.assert_array_equal(ours.test.x, test)


def test_new_rows_are_encoded_as_the_training_rows_were() -> None:
    ours = prepared(MIXED, test_fraction=0.0)
    stored = msgspec.json.decode(msgspec.json.encode(ours.preparation), type=Preparation)
    types = types_for(stored)(["kind", "paid", "city", "age"])
    assert types == ["skip", "number", "text", "number"]
    again = new_rows(stored, table(NumberColumn("paid", PAID), texts("city", CITY.tolist()), NumberColumn("age", AGE)))
    assert again.x.tobytes() == ours.train.x.tobytes()
    assert again.problems == {}


def test_an_unknown_category_has_no_input_and_an_unreadable_cell_has_a_reason() -> None:
    stored = prepared(MIXED).preparation
    age = NumberColumn("age", np.array([30.0, np.nan, np.nan]), {2: "1_000"})
    rows = new_rows(stored, table(age, texts("city", ["Paris", "", "Rome"]), NumberColumn("paid", np.ones(3))))
    assert rows.x[0, 2:5].tolist() == [0, 0, 0]
    assert rows.x[1, 1:6].tolist() == [1, 0, 0, 1, 1]  # both missing: marked, and the most frequent city
    assert rows.problems == {2: "'age': '1_000' is not a number"}


def test_categories_of_test_rows_only_are_unknown() -> None:
    cells = ["a", "b"] * 50
    _, test = train_test_split(np.arange(100), test_size=0.2, random_state=42)
    for row in test[:3]:
        cells[row] = "rare"
    ours = prepared(table(texts("city", cells), NumberColumn("x", np.arange(100.0)), texts("kind", ["u", "v"] * 50)))
    assert ours.preparation.encodings[0].categories == ("a", "b")
    assert ours.test.x[:3, :2].tolist() == [[0, 0]] * 3


def test_times_become_days_and_cycles() -> None:
    moments = [datetime(2020 + at % 2, 1 + at % 12, 1 + at % 28, at % 24) for at in range(60)]
    column = TimeColumn("when", np.array(moments, dtype="datetime64[us]"))
    ours = prepared(table(column, texts("kind", ["u", "v"] * 30)), test_fraction=0.0, scaling="none")
    angles = np.array([
        [2 * np.pi * (moment.month - 1) / 12, 2 * np.pi * moment.weekday() / 7, 2 * np.pi * moment.hour / 24] for moment in moments
    ])  # fmt: skip
    days = [(moment - datetime(2020, 1, 1)).total_seconds() / 86400 for moment in moments]
    first, year, *cycles = ours.train.x.T
    np.testing.assert_allclose(first, days, rtol=1e-6)
    assert year.tolist() == [moment.year for moment in moments]
    waves = np.stack([wave for angle in angles.T for wave in (np.sin(angle), np.cos(angle))])
    np.testing.assert_allclose(cycles, waves, atol=1e-6)


def test_a_category_of_many_values_gets_an_embedding_of_documented_size() -> None:
    cells = [f"shop {at % 60}" for at in range(300)]
    source = table(texts("shop", cells), NumberColumn("x", np.arange(300.0)), texts("kind", ["u", "v"] * 150))
    ours = prepared(source, test_fraction=0.0)
    assert ours.preparation.encodings[0].embedding == 16  # 1.6 · 60^0.56 = 15.8
    assert ours.train.x.shape == (300, 2)
    assert set(ours.train.x[:, 0].tolist()) == set(range(1, 61))
    assert [embedding_size(count) for count in (51, 1000, 10**6)] == [14, 50, 50]


def test_too_many_inputs_are_refused_with_the_name_of_the_column() -> None:
    cells = [f"shop {at}" for at in range(5000)]
    source = table(texts("shop", cells), NumberColumn("x", np.arange(5000.0)), texts("kind", ["u", "v"] * 2500))
    with pytest.raises(Invalid, match=r"4,500 of them from 'shop'; leave it out with !shop") as caught:
        prepared(source, kinds="shop=category", model="cnn", test_fraction=0.1)
    assert caught.value.field == "columns"


def test_rows_with_gaps_are_dropped_or_refused_if_asked() -> None:
    whole = int((~np.isnan(AGE) & (CITY != "")).sum())
    ours = prepared(MIXED, missing="drop", test_fraction=0.0)
    assert len(ours.train) == whole
    assert f"{ROWS - whole} rows with missing values are left out" in ours.notes
    first = int(np.isnan(AGE).argmax()) + 2
    with pytest.raises(Invalid, match=f"t.csv, line {first}, column 'age': the value is missing"):
        prepared(MIXED, missing="refuse")


def test_the_treatment_of_every_column_is_reported() -> None:
    source = table(
        *MIXED.columns,
        texts("note", [f"a longer text {at}" for at in range(ROWS)]),
        texts("ticket", [f"T{at}" for at in range(ROWS)]),
        NumberColumn("more", PAID),
    )
    facts = {fact.name: fact for fact in prepared(source, columns="!more").columns}
    assert list(facts) == ["age", "city", "paid", "kind", "note", "ticket", "more"]
    assert [fact.kind for fact in facts.values()] == [
        "number", "category", "number", "label", "text", "identifier", "skipped",
    ]  # fmt: skip
    assert facts["age"].missing == int(np.isnan(AGE).sum())
    assert facts["age"].distinct == len(np.unique(AGE[~np.isnan(AGE)]))
    assert "'Rome' (most frequent), marked by an input" in facts["city"].treatment
    assert facts["ticket"].treatment == "left out: 200 of 200 values differ"
