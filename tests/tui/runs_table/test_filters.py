"""The grammar of the filter: what is parsed, what is refused and where, and that showing a filter loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.tui.runs_table.filter.grammar import (
    EVERYTHING,
    OPERATORS,
    Both,
    Compare,
    Contains,
    Either,
    Filter,
    FilterError,
    Not,
    parse,
    quoted,
    show,
)

TEXTS = st.text(st.sampled_from("abz01./_-:é \"'\\()!=<>~"), min_size=0, max_size=6)
LEAVES = st.builds(Compare, TEXTS, st.sampled_from([o for o in OPERATORS if o != "=="]), TEXTS) | st.builds(
    Contains, TEXTS
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Both, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Either, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(FILTERS)
def test_a_filter_is_read_back_from_its_text(parsed: Filter) -> None:
    assert parse(show(parsed)) == parsed


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab =<>~!()\"'not or and"), max_size=20))
def test_any_text_is_parsed_or_refused_with_a_place_in_it(text: str) -> None:
    place = 0
    try:
        parse(text)
    except FilterError as error:
        place = error.position
    assert 0 <= place <= len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EVERYTHING),
        ("lr>=0.001", Compare("lr", ">=", "0.001")),
        ("lr >= 0.001", Compare("lr", ">=", "0.001")),
        ("a==b", Compare("a", "=", "b")),
        ("base", Contains("base")),
        ("model~res state=finished", Both((Compare("model", "~", "res"), Compare("state", "=", "finished")))),
        (
            "a=1 and b=2 or c=3",
            Either((Both((Compare("a", "=", "1"), Compare("b", "=", "2"))), Compare("c", "=", "3"))),
        ),
        ("a=1 (b=2 OR c=3)", Both((Compare("a", "=", "1"), Either((Compare("b", "=", "2"), Compare("c", "=", "3")))))),
        ("not a=1", Not(Compare("a", "=", "1"))),
        ("!(base)", Not(Contains("base"))),
        ("'a b'='c d'", Compare("a b", "=", "c d")),
        ("best:val/loss<0.1", Compare("best:val/loss", "<", "0.1")),
        ("lr=1e-3", Compare("lr", "=", "1e-3")),
    ],
)
def test_a_filter_means(text: str, expected: Filter) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("lr>=", 4, "needs a value"),
        ("state=finished >0.1", 15, "needs a column"),
        ("(a=1 b=2", 0, "no closing )"),
        ("a=1 ) b=2", 4, "no opening ("),
        ("a=1 or", 6, "the filter ends"),
        ("a=1 ()", 5, "the parenthesis ends"),
        ("a=1 name='x", 9, "no closing '"),
        ("not", 3, "the filter ends"),
        ("(" * 60, 50, "50 levels"),
    ],
)
def test_an_error_names_its_position(text: str, position: int, words: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse(text)
    assert (refused.value.position, words in refused.value.message) == (position, True), refused.value.message


def test_words_of_the_grammar_are_quoted() -> None:
    assert [quoted(text) for text in ("lr", "or", "a b", 'say "x"', "")] == [
        "lr",
        '"or"',
        '"a b"',
        '"say \\"x\\""',
        '""',
    ]
