"""The filter of the board, which selects series by name: `loss !val`, `a|b`, `/re/`.

A pure grammar of text and names:

    filter      = { term }                      every term must match
    term        = [ "!" ] alternatives          "!" negates all of them
    alternatives = part { "|" part }            one of them must match
    part        = "/" regular expression "/"  |  text without blanks and "|"

Case does not matter. Never imports a widget.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REGEX = re.compile(r"/((?:[^/\\]|\\.)*)/")


class FilterError(ValueError):
    """What is wrong with the text of a filter, in one line."""


@dataclass(frozen=True)
class Term:
    """Patterns of which one must match; if `negated`, none may."""

    patterns: tuple[re.Pattern[str], ...]
    negated: bool = False

    def matches(self, name: str) -> bool:
        """Whether the term holds for a name."""
        return any(pattern.search(name) for pattern in self.patterns) != self.negated


@dataclass(frozen=True)
class Filter:
    """Terms that must all match. Without terms, every name matches."""

    text: str = ""
    terms: tuple[Term, ...] = ()

    def matches(self, name: str) -> bool:
        """Whether a series is shown."""
        return all(term.matches(name) for term in self.terms)


def parse(text: str) -> Filter:
    """The filter that a text describes. Raises FilterError."""
    terms, place = [], 0
    while (place := _after_blanks(text, place)) < len(text):
        negated = text[place] == "!"
        patterns, place = _alternatives(text, place + negated, "!" if negated else "")
        terms.append(Term(patterns, negated))
    return Filter(text.strip(), tuple(terms))


def _after_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _alternatives(text: str, place: int, before: str) -> tuple[tuple[re.Pattern[str], ...], int]:
    """The patterns from `place` on, and the place after them. `before` is the mark in front of the first one."""
    patterns = []
    while True:
        pattern, place = _part(text, place, before)
        patterns.append(pattern)
        if place == len(text) or text[place] != "|":
            return tuple(patterns), place
        place, before = place + 1, "|"


def _part(text: str, place: int, before: str) -> tuple[re.Pattern[str], int]:
    end = place
    while end < len(text) and text[end] != "|" and not text[end].isspace():
        end += 1
    if end == place:
        raise FilterError(f"a name is missing after {before}" if before else "a name is missing before |")
    if text[place] != "/":
        return re.compile(re.escape(text[place:end]), re.IGNORECASE), end
    regex = _REGEX.match(text, place)
    if regex is None:
        raise FilterError(f"{text[place:]} has no closing /")
    after = regex.end()
    if after < len(text) and text[after] != "|" and not text[after].isspace():
        raise FilterError(f"a blank is missing after {regex[0]}")
    try:
        return re.compile(regex[1], re.IGNORECASE), after
    except (re.error, RecursionError, OverflowError) as error:
        raise FilterError(f"{regex[0]} is not a regular expression: {error}") from error
