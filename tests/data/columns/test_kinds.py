"""The kind of a column follows from its values, and the labels from the target columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epochtop.engine.data.columns.kinds import Feature, feature_of
from epochtop.engine.data.columns.targets import labels_of_columns
from epochtop.engine.data.tables.column import NumberColumn, TimeColumn
from epochtop.engine.protocol.spec import Invalid
from tests.data.columns.test_encoding import texts

DATES = ["2024-02-28", "2024-02-29", "2024-03-01"]
CASES: dict[str, tuple[list[str], str, str]] = {
    "few words": (["a", "b", ""] * 10, "", "category"),
    "booleans": (["True", "FALSE", ""] * 10, "", "category"),
    "dates": (DATES * 10, "", "time"),
    "times with a zone": (["2024-02-28T10:00:00+02:00", "2024-02-28 09:30Z"] * 5, "", "time"),
    "American dates": (["02/28/2024", "12/01/2023"] * 5, "", "time"),
    "European dates": (["28.02.2024", "01.12.2023"] * 5, "", "time"),
    "no such day": ([*DATES, "2024-02-30"] * 5, "", "category"),
    "sentences": ([f"this is sentence {at}" for at in range(40)], "left out", "text"),
    "tickets": ([f"PC {at}" for at in range(40)], "left out", "identifier"),
    "few rows of different words": ([f"w{at}" for at in range(15)], "", "category"),
    "nothing": ([""] * 10, "left out", "text"),
    "always the same": (["Pave"] * 10, "left out", "category"),
    "leading zeros": (["007", "010"] * 10, "", "category"),
    "numbers and an unusual gap": ([*(str(at) for at in range(99)), "unknown"], "", "number"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_kind_of_a_text_column_follows_from_its_texts(case: str) -> None:
    cells, fate, kind = CASES[case]
    result = feature_of(texts("x", cells))
    assert (isinstance(result, Feature), result.kind) == (not fate, kind)


def test_a_chosen_kind_wins_or_is_explained() -> None:
    zips = NumberColumn("zip", np.array([10115.0, np.nan, 80331.0] * 5))
    as_category = feature_of(zips, "category")
    assert isinstance(as_category, Feature)
    assert as_category.encoding.categories == ("10115", "80331")
    ids = feature_of(texts("id", [f"{at} x" for at in range(40)]), "category")
    assert isinstance(ids, Feature)
    day = feature_of(NumberColumn("day", np.array([20240228, 20240301])), "time")
    assert isinstance(day, Feature)
    assert (day.kind, day.encoding.time_format) == ("time", "%Y%m%d")
    with pytest.raises(Invalid, match="column 'x' holds 'b', which is not a date or time"):
        feature_of(texts("x", ["2024-02-28", "b"]), "time")


GAPS = {
    "classes": (["yes", "no", "", "?", "yes"], "classification", [1, 0, 1]),
    "minus and NA are classes": (["-", "+", "NA", "", "+"], "classification", [1, 0, 2, 0]),
    "numbers with NA": (["1.5", "NA", "2.5", "-", "0.5"], "regression", [1.5, 2.5, 0.5]),
}


@pytest.mark.parametrize("case", GAPS)
def test_rows_without_a_label_are_left_out_and_counted(case: str) -> None:
    cells, problem, labels = GAPS[case]
    result = labels_of_columns([texts("y", cells)], "auto")
    assert result.y.tolist() == labels
    assert result.loss == ("cross_entropy" if problem == "classification" else "mean_squared_error")
    gaps = len(cells) - len(labels)
    rows = "1 row without a label in 'y' is" if gaps == 1 else f"{gaps} rows without a label in 'y' are"
    assert f"{rows} left out" in result.notes
    assert result.facts[0].missing == gaps


def test_a_date_is_predicted_as_days() -> None:
    expected = [19781.0, 19782.0, 19783.0]  # 2024-02-28 is day 19,781 of Unix time
    times = TimeColumn("day", np.array(DATES, dtype="datetime64[us]"))
    for column in (times, texts("day", DATES)):
        assert labels_of_columns([column], "auto").y.tolist() == expected


SEVERAL: dict[str, tuple[list[Any], str, str, list[list[float]]]] = {
    "numbers": ([[1.5, 2], ["3", "4"]], "auto", "mean_squared_error", [[1.5, 3], [2, 4]]),
    "labels": ([[1.0, 0], ["yes", "no"]], "auto", "binary_cross_entropy", [[1, 1], [0, 0]]),
    "labels as numbers": ([[1.0, 0], ["0", "1"]], "regression", "mean_squared_error", [[1, 0], [0, 1]]),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_targets_are_numbers_or_labels(case: str) -> None:
    (first, second), problem, loss, y = SEVERAL[case]
    result = labels_of_columns([NumberColumn("a", np.array(first)), texts("b", second)], problem)  # type: ignore[arg-type]
    assert (result.loss, result.y.tolist(), result.targets) == (loss, y, ("a", "b"))


def test_several_targets_of_text_are_explained() -> None:
    columns = [texts("a", ["1", "0"]), texts("b", ["red", "blue"])]
    with pytest.raises(Invalid, match="column 'b' holds text"):
        labels_of_columns(columns, "auto")
    with pytest.raises(Invalid, match="column 'b' holds other values"):
        labels_of_columns(columns, "multi-label")
