"""What a run does with the columns of a table is listed with what needs attention."""

from __future__ import annotations

from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.tui.state.column_lines import heading, notable_columns, short_lines, table_of_columns

FACTS = (
    ColumnFact(
        name="age", kind="number", missing=177, distinct=88, treatment="scaled (standard); missing: 28 (median)"
    ),
    ColumnFact(name="fare", kind="number", treatment="scaled (standard)"),
    ColumnFact(name="survived", kind="label", distinct=2, treatment="2 classes"),
)


def test_a_table_has_a_line_per_column() -> None:
    assert table_of_columns(FACTS) == [
        "column    kind    missing  distinct  treatment",
        "age       number      177        88  scaled (standard); missing: 28 (median)",
        "fare      number        0         —  scaled (standard)",
        "survived  label         0         2  2 classes",
    ]


def test_numbers_without_gaps_are_only_counted() -> None:
    assert notable_columns(FACTS)[1:] == [
        "age       number      177        88  scaled (standard); missing: 28 (median)",
        "survived  label         0         2  2 classes",
        "1 other column of numbers without missing values: scaled (standard)",
    ]
    assert notable_columns(FACTS[1:]) == []
    assert heading(FACTS) == "columns"
    assert short_lines(FACTS) == [
        "age (number): 177 missing; scaled (standard); missing: 28 (median)",
        "survived (label): 2 classes",
        "1 other column of numbers without missing values: scaled (standard)",
    ]


def test_images_have_a_line_in_the_form_but_not_in_the_log() -> None:
    images = ColumnFact(name="images", kind="image", treatment="28×28 pixels, gray, each channel standardized")
    assert heading([images, FACTS[2]]) == "data"
    assert short_lines([images]) == ["images (image): 28×28 pixels, gray, each channel standardized"]
    assert notable_columns([images, FACTS[2]]) == []
