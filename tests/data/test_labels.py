"""Labels keep their text, numbers follow one strict grammar in every reader, and whole numbers become what people expect."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.data.dataset import PreparedDataset
from epochtop.engine.data.labels import labels_of
from epochtop.engine.data.load import load
from epochtop.engine.data.number_text import is_infinity, is_number
from epochtop.engine.data.tables.cells.missing import is_missing_text
from epochtop.engine.data.tables.cells.numbers import PLAIN, NotNumbersError, floats_of
from epochtop.engine.data.tables.column import TextColumn
from epochtop.engine.data.tables.csv_files import read
from epochtop.engine.protocol.datasets import Problem
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.training.resume import recorded_run
from tests.support.trained_runs import houses, trained

# --- which texts are numbers -------------------------------------------------------------------------------

NUMBERS = ["0", "-1", "+1", "007", "1.5", ".5", "5.", "1e3", "1E-3", "-2.5e+10", " 4 ", "1e999"]
TEXTS = [
    "", " ", "1_0", "2024_01_1", "0x10", "0b1", "0o7", "nan", "NaN", "inf", "-inf", "Infinity", "1e", "e1", ".", "+", "--1",
    "1,5", "1.2.3", "1 2", "١", "１", "²", "½", "1e1_0", "1\N{NO-BREAK SPACE}", "True", "12abc", "1f", "1L",
]  # fmt: skip


def test_numbers_are_decimal_digits_with_sign_point_and_exponent() -> None:
    assert [text for text in NUMBERS if not is_number(text)] == []
    assert [text for text in TEXTS if is_number(text)] == []


@given(
    st.lists(
        st.one_of(st.sampled_from([*NUMBERS, *TEXTS]), st.floats().map(repr), st.text("0123456789.eE+-_ ")), max_size=4
    )
)
def test_the_quick_way_reads_what_the_grammar_allows(texts: list[str]) -> None:
    if all(is_number(text.strip()) or is_infinity(text.strip()) or is_missing_text(text) for text in texts):
        numbers = [math.nan if is_missing_text(text) else float(text) for text in texts]
        np.testing.assert_equal(floats_of(texts, PLAIN), numbers)
    else:
        with pytest.raises(NotNumbersError):
            floats_of(texts, PLAIN)


# --- a class is named by its text ------------------------------------------------------------------------------

SAME_NUMBER = {
    "leading zeros": ["01", "1", "02", "2"],
    "underscores": ["1_0", "10", "10_", "1"],
    "exponents": ["1e1", "10", "1e2", "100"],
    "ids beyond float64": [str(2**53), str(2**53 + 1), str(10**30), str(10**30 + 1)],
    "signs": ["+1", "1", "-1", "0"],
    "words": ["Infinity", "1", "0x1", "2"],
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("case", SAME_NUMBER)
def test_labels_of_a_csv_file_stay_as_many_classes_as_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, large: bool
) -> None:
    texts = SAME_NUMBER[case] * 10
    file = tmp_path / "table.csv"
    file.write_text("a,label\n" + "".join(f"{row},{text}\n" for row, text in enumerate(texts)))
    monkeypatch.setattr(read, "LARGE_BYTES", 0 if large else 2**40)
    prepared = load(RunSpec(dataset=f"csv:{file}", target="label", problem="classification", test_fraction=0))
    classes = prepared.preparation.classes
    assert set(classes) == set(texts)
    assert [classes[code] for code in prepared.train.y] == texts


def test_classes_that_are_numbers_are_sorted_as_numbers() -> None:
    assert labels_of(["10", "9", "2"] * 10, "y").classes == ("2", "9", "10")
    assert labels_of(["10", "b", "9"], "y").classes == ("10", "9", "b")


def test_one_number_written_in_two_ways_is_reported() -> None:
    assert any("'1' and '1.0'" in note for note in labels_of(["1", "1.0", "2"] * 10, "y").notes)


IDS = [2**53, 2**53 + 1, 2**60, 2**60 + 1] * 5


def test_large_ids_in_arrays_and_parquet_columns_stay_apart(tmp_path: Path) -> None:
    names = {str(number) for number in IDS}
    x = np.arange(20.0)[:, None] ** 1.5
    np.savez(tmp_path / "t.npz", x=x, y=np.array(IDS))
    np.savez(tmp_path / "parts.npz", x_train=x, y_train=np.array(IDS), x_test=x, y_test=np.array(IDS, np.uint64))
    kinds = {"int": pyarrow.array(IDS), "decimal": pyarrow.array([Decimal(number) for number in IDS])}
    for kind, column in kinds.items():
        pyarrow.parquet.write_table(pyarrow.table({"a": x[:, 0], "id": column}), tmp_path / f"{kind}.parquet")
    datasets = ["npz:t.npz", "npz:parts.npz", "parquet:int.parquet", "parquet:decimal.parquet"]
    for dataset in datasets:
        kind, _, file = dataset.partition(":")
        fields: dict[str, Any] = {"target": "id"} if kind == "parquet" else {}
        prepared = load(
            RunSpec(dataset=f"{kind}:{tmp_path / file}", problem="classification", test_fraction=0, **fields)
        )
        assert set(prepared.preparation.classes) == names
        assert [prepared.preparation.classes[code] for code in prepared.train.y] == list(map(str, IDS))


def test_large_ids_that_were_stored_as_floats_are_refused() -> None:
    with pytest.raises(Invalid, match="store them as text or integers"):
        labels_of(np.array(IDS, dtype=np.float64), "id", "classification")


# --- features ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["2024_01_1", "1_0", "0x10", "١"])
def test_a_feature_outside_the_grammar_is_text(tmp_path: Path, cell: str) -> None:
    file = tmp_path / "table.csv"
    file.write_text(f"a,kind\n1,x\n{cell},y\n3,x\n4,y\n", encoding="utf-8")
    column = read.read_csv(file, lambda names: ["any", "label"]).column("a")
    assert isinstance(column, TextColumn)
    assert set(column.texts) == {"1", cell, "3", "4"}


# --- classification or regression ----------------------------------------------------------------------------


def decided(values: list[Any], problem: Problem = "auto") -> str:
    """The problem of a column, which must be the same for numbers and for their texts."""
    whole = all(isinstance(value, int) for value in values)
    answers = {labels_of(list(map(str, values)), "y", problem).loss}
    answers.add(labels_of(np.array(values) if whole else np.array(values, np.float64), "y", problem).loss)
    (loss,) = answers
    return {"cross_entropy": "classification", "mean_squared_error": "regression"}[loss]


AGES = [18 + 7 * row % 62 for row in range(90)]
EXPECTED: dict[str, tuple[list[Any], str]] = {
    "ages": (AGES, "regression"),
    "ages of many people": (AGES * 100, "regression"),
    "prices": ([100_000 + 1_337 * row for row in range(60)], "regression"),
    "rings of abalone": ([1 + row % 27 for row in range(2000)] + [29], "regression"),
    "ranks": (list(range(1, 51)), "regression"),
    "fractions": ([0.5, 1.0, 1.5] * 20, "regression"),
    "binary": ([0, 1] * 3, "classification"),
    "two far numbers": ([-7, 1000] * 3, "classification"),
    "species": ([0, 1, 2] * 50, "classification"),
    "quality of wine": ([3, 4, 5, 6, 7, 8] * 200, "classification"),
    "digits": ([*range(10)] * 3, "classification"),
    "letters": ([1 + row % 26 for row in range(2000)], "classification"),
    "cifar100": ([row % 100 for row in range(500)], "classification"),
    "a few rows of three": ([1, 2, 3, 1, 2, 3], "classification"),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_auto_decides_as_people_expect(case: str) -> None:
    values, expected = EXPECTED[case]
    assert decided(values) == expected
    assert decided(values, "classification") == "classification"
    assert decided(values, "regression") == "regression"


def test_leading_zeros_are_codes_however_many_they_are() -> None:
    labels = labels_of([f"{number:05}" for number in range(200)], "zip")
    assert labels.classes[:2] == ("00000", "00001")
    assert "leading zeros" in labels.notes[0]


def test_text_is_not_a_regression() -> None:
    with pytest.raises(Invalid, match=r"'red'.*needs numbers") as caught:
        labels_of(["1", "red", "2"], "color", "regression")
    assert caught.value.field == "problem"


def _age_table(folder: Path) -> Path:
    file = folder / "ages.csv"
    draw = np.random.default_rng(1)
    file.write_text("a,b,age\n" + "".join(f"{draw.random():.3f},{draw.random():.2f},{age}\n" for age in AGES))
    return file


def _loaded(file: Path, **fields: Any) -> PreparedDataset:
    return load(RunSpec(dataset=f"csv:{file}", target="age", scaling="none", test_fraction=0, **fields))


def test_the_field_decides_and_the_decision_is_noted(tmp_path: Path) -> None:
    file = _age_table(tmp_path)
    auto = _loaded(file)
    assert (auto.preparation.loss, auto.outputs) == ("mean_squared_error", 1)
    restored = auto.train.y * auto.preparation.target_spread + auto.preparation.target_center
    np.testing.assert_allclose(restored, AGES, rtol=1e-5)
    assert f"target 'age': {len(set(AGES))} distinct whole numbers in 90 rows make this a regression" in auto.notes[0]
    classes = _loaded(file, problem="classification")
    assert [int(classes.preparation.classes[code]) for code in classes.train.y] == AGES
    assert classes.outputs == len(set(AGES))


def test_more_classes_than_rows_advises_a_regression(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="or set problem to regression"):
        load(RunSpec(dataset=f"csv:{houses(tmp_path / 'h.csv', 30)}", target="price", problem="classification"))


def test_a_dataset_with_fixed_labels_has_no_problem_to_choose() -> None:
    with pytest.raises(Invalid) as caught:
        check(RunSpec(problem="regression"))
    assert caught.value.field == "problem"
    check(RunSpec(problem="regression", dataset="csv:a.csv", target="b"))


def test_a_resumed_run_keeps_its_problem(home: Path, tmp_path: Path) -> None:
    file = _age_table(tmp_path)
    for problem in ("classification", "regression"):
        run = trained(home, dataset=f"csv:{file}", target="age", problem=problem, epochs=2)
        record = run / "run.json"
        record.write_text(record.read_text().replace(f'"problem":"{problem}"', '"problem":"auto"'))
        assert recorded_run(run).spec.problem == problem
