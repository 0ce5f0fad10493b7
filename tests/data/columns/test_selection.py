"""Settings name targets, features and kinds by name, pattern or position."""

from __future__ import annotations

import pytest

from epochtop.engine.data.columns.selection import ColumnSelection, chosen_features, chosen_kinds, target_names
from epochtop.engine.protocol.spec import Invalid, RunSpec

NAMES = ("Id", "age", "cabin", "city", "a, b", "last", "price")


@pytest.mark.parametrize(("target", "names"), [
    ("age", ("age",)), ("#2", ("age",)), ("#-1", ("price",)), ("#-2", ("last",)), ("last", ("last",)), ("a, b", ("a, b",)),
    ("age,price", ("age", "price")), (" #1 , #-1 ", ("Id", "price")),
])  # fmt: skip
def test_a_target_is_a_name_or_a_position(target: str, names: tuple[str, ...]) -> None:
    assert target_names(target, NAMES) == names


def test_last_is_the_last_column_unless_one_has_this_name() -> None:
    assert target_names("last", ("a", "b")) == ("b",)


@pytest.mark.parametrize(("columns", "names"), [
    ("", NAMES), ("age,c*", ("age", "cabin", "city")), ("!Id, !c*", ("age", "a, b", "last", "price")),
    ("c*,!city", ("cabin",)), ("*", NAMES), ("a? b", ("a, b",)),
])  # fmt: skip
def test_columns_are_kept_or_dropped_by_name_and_pattern(columns: str, names: tuple[str, ...]) -> None:
    assert chosen_features(columns.replace("a? b", "a?*b"), NAMES) == names


def test_kinds_apply_to_patterns_too() -> None:
    assert chosen_kinds("age=number, c*=category,Id=skip", NAMES) == {
        "age": "number", "cabin": "category", "city": "category", "Id": "skip",
    }  # fmt: skip


@pytest.mark.parametrize(("fields", "field", "message"), [
    ({"target": ""}, "target", "set the label column"),
    ({"target": "Price"}, "target", "no column 'Price'; the columns are Id, age"),
    ({"target": "#8"}, "target", "no column #8; the table has 7 columns"),
    ({"target": "#0"}, "target", "no column #0"),
    ({"target": "age,age"}, "target", "'age' is named twice"),
    ({"target": "age", "columns": "x*"}, "columns", "no column matches 'x*'"),
    ({"target": "age", "columns": "age"}, "columns", "no feature column is left"),
    ({"target": "age", "kinds": "x=number"}, "kinds", "no column matches 'x'"),
])  # fmt: skip
def test_a_setting_that_does_not_fit_is_explained(fields: dict[str, str], field: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        ColumnSelection(RunSpec(dataset="csv:t.csv", **fields))(NAMES)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert message in caught.value.message


def test_a_reader_learns_the_type_of_every_column() -> None:
    selection = ColumnSelection(
        RunSpec(dataset="csv:t.csv", target="price", columns="!Id", kinds="age=number,city=category")
    )
    assert selection(NAMES) == ["skip", "number", "any", "text", "any", "any", "label"]
    assert (selection.targets, selection.skipped) == (("price",), ("Id",))
