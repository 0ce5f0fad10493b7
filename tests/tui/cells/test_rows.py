"""Rows: composing, cutting, comparing, and how they look."""

from __future__ import annotations

import pytest
from rich.style import Style

from epochtop.tui.cells.canvas import BLANK, Canvas, Row
from epochtop.tui.cells.rows import (
    BAD,
    EMPTY,
    QUIET,
    TEXT,
    captioned,
    cleaned,
    cut,
    difference,
    fitted,
    joined,
    recolored,
    row,
    wrapped_lines,
)
from epochtop.tui.cells.styles import strip


def test_a_strip_has_few_segments_and_a_style_in_each() -> None:
    canvas = Canvas(12, 1)
    canvas.put(2, 0, "ab  c", 1)
    canvas.put(9, 0, "x", 2)
    result = strip(canvas.rows()[0], {0: Style(), 1: Style(color="red"), 2: Style(bold=True)})
    assert result.text == "  ab  c  x  "
    assert [(segment.text, str(segment.style)) for segment in result] == [
        ("  ", "none"),
        ("ab  c  ", "red"),
        ("x  ", "bold"),
    ]


def test_the_difference_of_rows_is_the_range_of_changed_cells() -> None:
    old, new = Canvas(8, 1), Canvas(8, 1)
    assert difference(old.rows()[0], new.rows()[0]) is None
    new.put(3, 0, "ab", 1)
    assert difference(old.rows()[0], new.rows()[0]) == (3, 5)


def test_a_new_role_is_a_difference() -> None:
    assert difference(row(("abc", TEXT)), row(("a", TEXT), ("b", BAD), ("c", TEXT))) == (1, 2)


def test_a_row_has_a_role_per_cell() -> None:
    assert row(("ab", QUIET), ("", BAD), ("c", TEXT)) == Row("abc", (QUIET, QUIET, TEXT))


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "長い", "e\u0301"])
def test_characters_that_do_not_fill_one_cell_are_replaced(text: str) -> None:
    assert len(cleaned(text)) == len(text)
    assert "?" in cleaned(text)


def test_a_row_is_padded_or_clipped_to_a_width() -> None:
    assert fitted(row(("abc", TEXT)), 5) == Row("abc  ", (TEXT, TEXT, TEXT, BLANK, BLANK))
    assert fitted(row(("abc", TEXT)), 2) == Row("ab", (TEXT, TEXT))


@pytest.mark.parametrize(("width", "text"), [(6, "one tw"), (5, "one…"), (4, "one…"), (3, "on…"), (1, "…"), (0, "")])
def test_a_cut_never_leaves_a_blank_before_its_mark(width: int, text: str) -> None:
    assert cut("one tw", width) == text


def test_wrapped_lines_end_with_a_mark_if_there_are_too_many() -> None:
    assert wrapped_lines("one two three four", 9, 3) == ["one two", "three", "four"]
    assert wrapped_lines("one two three four", 9, 2) == ["one two", "three fo…"]


def test_a_label_is_in_front_of_the_first_line_only() -> None:
    assert [line.text for line in captioned("Mem", ["a", "b"], 5)] == ["Mem  a", "     b"]


def test_rows_are_joined_at_a_column() -> None:
    left, right = row(("ab", TEXT)), row(("c", BAD))
    assert joined(left, right, 4) == Row("ab  c", (TEXT, TEXT, BLANK, BLANK, BAD))
    assert joined(left, EMPTY, 4) == left


def test_recoloring_replaces_roles_and_no_characters() -> None:
    assert recolored(row(("a", TEXT), ("b", BAD)), {TEXT: QUIET}) == Row("ab", (QUIET, BAD))
