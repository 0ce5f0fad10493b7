"""The filter of the table: `lr>=0.001 model~res (state=finished or tag=base)`, parsed with the position of every error.

    filter     = either
    either     = both { "or" both }
    both       = inverse { ["and"] inverse }
    inverse    = "not" inverse | "(" either ")" | comparison | text
    comparison = name ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~") text

A text alone matches names and tags that contain it. Quotes (`"` or `'`) protect blanks and words of the grammar. Pure functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~", "!~"]
OPERATORS = ("!=", "<=", ">=", "!~", "==", "=", "<", ">", "~")
KEYWORDS = ("and", "or", "not")


class FilterError(ValueError):
    """A filter that cannot be understood."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        """What is wrong."""
        self.position = position
        """Where, in characters from the beginning."""

    def __str__(self) -> str:
        return f"at {self.position + 1}: {self.message}"


@dataclass(frozen=True)
class Compare:
    """A comparison of a column with a text."""

    name: str
    operator: Operator
    text: str
    position: int = field(default=0, compare=False)
    """Where the name begins."""


@dataclass(frozen=True)
class Contains:
    """A text in the name, the id or a tag of a run."""

    text: str


@dataclass(frozen=True)
class Not:
    """What does not hold."""

    part: Filter


@dataclass(frozen=True)
class Both:
    """All parts hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Either:
    """At least one part holds."""

    parts: tuple[Filter, ...]


Filter = Compare | Contains | Not | Both | Either

EVERYTHING = Both(())
"""The empty filter."""


class Token(NamedTuple):
    """A piece of a filter."""

    kind: Literal["text", "operator", "keyword", "(", ")", "end"]
    text: str
    start: int
    stop: int


_PIECE = re.compile(r"""\s+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|!=|<=|>=|!~|==|[=<>~()]|[^\s=<>~()!"']+|!|["']""")


def tokens(text: str) -> list[Token]:
    """The pieces of a filter; the last one marks its end. Raises FilterError for a quote without its counterpart."""
    pieces = []
    for match in _PIECE.finditer(text):
        piece, start, stop = match[0], match.start(), match.end()
        if piece in ("'", '"'):
            raise FilterError(f"this quote has no closing {piece}", start)
        if not piece.isspace():
            pieces.append(_token(piece, start, stop))
    return [*pieces, Token("end", "", len(text), len(text))]


def _token(piece: str, start: int, stop: int) -> Token:
    if piece[0] in "\"'":
        return Token("text", re.sub(r"\\(.)", r"\1", piece[1:-1]), start, stop)
    if piece in ("(", ")"):
        return Token(cast(Literal["(", ")"], piece), piece, start, stop)
    if piece in OPERATORS:
        return Token("operator", "=" if piece == "==" else piece, start, stop)
    if piece == "!":
        return Token("keyword", "not", start, stop)
    if piece.lower() in KEYWORDS:
        return Token("keyword", piece.lower(), start, stop)
    return Token("text", piece, start, stop)


def parse(text: str) -> Filter:
    """The filter that a text describes. Raises FilterError."""
    parser = _Parser(tokens(text))
    if parser.next().kind == "end":
        return EVERYTHING
    parsed = parser.either()
    if parser.next().kind != "end":
        raise FilterError("this ) has no opening (", parser.next().start)
    return parsed


class _Parser:
    """A position in the pieces; each method reads one rule of the grammar."""

    def __init__(self, pieces: list[Token]) -> None:
        self._pieces, self._place, self._depth = pieces, 0, 0

    def next(self) -> Token:
        """The piece at the position."""
        return self._pieces[self._place]

    def _take(self) -> Token:
        token = self.next()
        self._place += token.kind != "end"
        return token

    def _at(self, word: str) -> bool:
        return self.next().kind == "keyword" and self.next().text == word

    def either(self) -> Filter:
        parts = [self._both()]
        while self._at("or"):
            self._take()
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Filter:
        parts = [self._inverse()]
        while self.next().kind not in ("end", ")") and not self._at("or"):
            if self._at("and"):
                self._take()
            parts.append(self._inverse())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _inverse(self) -> Filter:
        token = self._take()
        if token.kind == "(":
            return self._group(token)
        if token.kind == "keyword" and token.text == "not":
            self._deeper(token)
            part = self._inverse()
            self._depth -= 1
            return Not(part)
        if token.kind == "text":
            return self._comparison(token) if self.next().kind == "operator" else Contains(token.text)
        if token.kind == "operator":
            raise FilterError(f"{token.text} needs a column before it, such as lr{token.text}0.1", token.start)
        what = {"end": "the filter ends", ")": "the parenthesis ends"}.get(token.kind, f"there is {token.text!r}")
        raise FilterError(f"{what} where a condition is expected, such as lr>=0.001", token.start)

    @staticmethod
    def _is_mark(token: Token) -> bool:
        """Whether a keyword was written as `!`."""
        return token.kind == "keyword" and token.stop - token.start != len(token.text)

    def _group(self, opening: Token) -> Filter:
        self._deeper(opening)
        inner = self.either()
        if self._take().kind != ")":
            raise FilterError("this ( has no closing )", opening.start)
        self._depth -= 1
        return inner

    def _deeper(self, token: Token) -> None:
        self._depth += 1
        if self._depth > 50:
            raise FilterError("more than 50 levels of parentheses", token.start)

    def _comparison(self, name: Token) -> Filter:
        operator, value = self._take(), self._take()
        if value.kind not in ("text", "keyword") or self._is_mark(value):
            raise FilterError(f"{name.text}{operator.text} needs a value", value.start)
        return Compare(name.text, cast(Operator, operator.text), value.text, name.start)


def show(parsed: Filter) -> str:
    """A filter as text that :func:`parse` reads back."""
    match parsed:
        case Compare():
            return f"{quoted(parsed.name)}{parsed.operator}{quoted(parsed.text)}"
        case Contains():
            return quoted(parsed.text)
        case Not():
            return f"not {_inner(parsed.part)}"
        case Both():
            return " ".join(map(_inner, parsed.parts))
        case Either():
            return " or ".join(map(_inner, parsed.parts))


def _inner(part: Filter) -> str:
    return f"({show(part)})" if isinstance(part, Both | Either) else show(part)


def quoted(text: str) -> str:
    """A text as one piece of a filter, in quotes if it needs them."""
    if re.fullmatch(r"""[^\s=<>~()!"']+""", text) and text.lower() not in KEYWORDS:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
