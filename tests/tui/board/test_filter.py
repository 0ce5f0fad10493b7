"""The grammar of the board's filter."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.tui.board.filter import FilterError, parse

NAMES = ("train/loss", "val/loss", "val/accuracy", "Train/Accuracy", "grad_norm", "system/gpu0/percent")


def shown(text: str) -> list[str]:
    return [name for name in NAMES if parse(text).matches(name)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", list(NAMES)),
        ("loss", ["train/loss", "val/loss"]),
        ("loss !val", ["train/loss"]),
        ("  loss   !val ", ["train/loss"]),
        ("norm|percent", ["grad_norm", "system/gpu0/percent"]),
        ("!loss|accuracy", ["grad_norm", "system/gpu0/percent"]),
        ("ACCURACY", ["val/accuracy", "Train/Accuracy"]),
        ("/^val/", ["val/loss", "val/accuracy"]),
        (r"/^val\/l/", ["val/loss"]),
        ("!/a/", ["system/gpu0/percent"]),
        ("/gpu[0-9]/|grad", ["grad_norm", "system/gpu0/percent"]),
        ("/loss|norm/", ["train/loss", "val/loss", "grad_norm"]),
        ("/a b/", []),
        ("val/loss", ["val/loss"]),
    ],
)
def test_a_filter_selects_names(text: str, names: list[str]) -> None:
    assert shown(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss !", "a name is missing after !"),
        ("a|", "a name is missing after |"),
        ("|a", "a name is missing before |"),
        ("/loss", "/loss has no closing /"),
        ("/loss/x", "a blank is missing after /loss/"),
        ("/[/", "/[/ is not a regular expression: unterminated character set at position 0"),
    ],
)
def test_an_error_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(FilterError) as error:
        parse(text)
    assert str(error.value) == message


words = st.text(st.sampled_from("abcx_./-"), min_size=1, max_size=4).filter(lambda word: word[0] not in "/!")
names = st.text(st.sampled_from("abcx_./-"), max_size=12)


@given(st.text(max_size=40), names)
def test_any_text_is_a_filter_or_an_error_of_one_line(text: str, name: str) -> None:
    with suppress(FilterError):
        assert parse(text).matches(name) in (True, False)


@given(st.lists(st.tuples(st.booleans(), st.lists(words, min_size=1, max_size=3)), max_size=4), names)
def test_terms_are_joined_by_and_alternatives_by_or(terms: list[tuple[bool, list[str]]], name: str) -> None:
    text = " ".join(("!" if negated else "") + "|".join(parts) for negated, parts in terms)
    expected = all(any(part in name for part in parts) != negated for negated, parts in terms)
    assert parse(text).matches(name) == expected


@given(words, names)
def test_a_negated_term_selects_the_rest(word: str, name: str) -> None:
    assert parse(word).matches(name) != parse(f"!{word}").matches(name)
