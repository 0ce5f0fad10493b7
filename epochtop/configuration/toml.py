"""TOML text as dictionaries: `tomllib` where Python has it (3.11), else a reader of our own for the older versions.

Our reader knows everything in TOML 1.0 but dates, which no key has. Imports the standard library only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_BASES = {"0x": 16, "0o": 8, "0b": 2}


def parse(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError, which says what is wrong and in which line."""
    try:
        import tomllib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return parse_plainly(text)
    return tomllib.loads(text)


def parse_plainly(text: str) -> dict[str, Any]:
    """The same without `tomllib`. Raises ValueError also for dates."""
    return _Reader(text.replace("\r\n", "\n")).document()


class _Reader:
    """A position in a text, and what is read from there."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.root: dict[str, Any] = {}
        self.declared: set[int] = set()
        """Identities of the tables that have a heading of their own."""
        self.closed: list[object] = []
        """Inline tables and arrays, which nothing may be added to."""

    def fail(self, message: str) -> ValueError:
        return ValueError(f"{message} (at line {self.text.count(chr(10), 0, self.at) + 1})")

    def peek(self, length: int = 1) -> str:
        return self.text[self.at : self.at + length]

    def take(self, token: str) -> bool:
        """Whether this comes next in the text; skips it then."""
        if self.peek(len(token)) == token:
            self.at += len(token)
            return True
        return False

    def need(self, token: str) -> None:
        if not self.take(token):
            raise self.fail(f"expected {token!r}")

    def spaces(self) -> None:
        while self.peek() in (" ", "\t"):
            self.at += 1

    def blank(self) -> None:
        """Pass spaces, comments and newlines."""
        while True:
            self.spaces()
            if self.peek() == "#":
                self.comment()
            elif not self.take("\n"):
                return

    def comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def end_line(self) -> None:
        self.spaces()
        if self.peek() == "#":
            self.comment()
        if self.at < len(self.text):
            self.need("\n")

    # --- structure -------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        table = self.root
        while True:
            self.blank()
            if self.at >= len(self.text):
                return self.root
            if self.peek() == "[":
                table = self.heading()
            else:
                self.pair(table)
            self.end_line()

    def heading(self) -> dict[str, Any]:
        is_array = self.take("[[")
        if not is_array:
            self.need("[")
        *path, last = self.names()
        self.need("]]" if is_array else "]")
        table = self.root
        for name in path:
            table = self.inner(table, name)
        if is_array:
            tables = table.setdefault(last, [])
            if not isinstance(tables, list) or any(tables is inner for inner in self.closed):
                raise self.fail(f"{last} is not a list of tables")
            tables.append({})
            return tables[-1]  # type: ignore[no-any-return]
        chosen = self.inner(table, last)
        if id(chosen) in self.declared or isinstance(table.get(last), list):
            raise self.fail(f"table {last} appears twice")
        self.declared.add(id(chosen))
        return chosen

    def inner(self, table: dict[str, Any], name: str) -> dict[str, Any]:
        """The table of this name, which is made if there is none; the last one of a list of tables."""
        value = table.setdefault(name, {})
        if isinstance(value, list) and value and not any(value is inner for inner in self.closed):
            value = value[-1]
        if not isinstance(value, dict) or any(value is inner for inner in self.closed):
            raise self.fail(f"{name} is not a table")
        return value

    def pair(self, table: dict[str, Any]) -> None:
        *path, last = self.names()
        self.need("=")
        self.spaces()
        for name in path:
            table = self.inner(table, name)
            if id(table) in self.declared:
                raise self.fail(f"table {name} appears twice")
        if last in table:
            raise self.fail(f"{last} appears twice")
        table[last] = self.value()

    def names(self) -> list[str]:
        """A key with dots."""
        names = []
        while True:
            self.spaces()
            if self.peek() in ('"', "'"):
                names.append(self.string(multiline=False))
            else:
                start = self.at
                while self.peek() in _BARE and self.peek():
                    self.at += 1
                if self.at == start:
                    raise self.fail("expected a key")
                names.append(self.text[start : self.at])
            self.spaces()
            if not self.take("."):
                return names

    # --- values ------------------------------------------------------------------------------------------------

    def value(self) -> Any:
        first = self.peek()
        if first in ('"', "'"):
            return self.string(multiline=True)
        if first == "[":
            return self.array()
        if first == "{":
            return self.inline_table()
        for word, value in (("true", True), ("false", False)):
            if self.take(word):
                return value
        return self.number()

    def array(self) -> list[Any]:
        self.need("[")
        items: list[Any] = []
        while True:
            self.blank()
            if self.take("]"):
                break
            items.append(self.value())
            self.blank()
            if not self.take(","):
                self.need("]")
                break
        self.closed.append(items)
        return items

    def inline_table(self) -> dict[str, Any]:
        self.need("{")
        table: dict[str, Any] = {}
        self.spaces()
        if not self.take("}"):
            while True:
                self.pair(table)
                self.spaces()
                if not self.take(","):
                    self.need("}")
                    break
        self.close(table)
        return table

    def close(self, table: dict[str, Any]) -> None:
        self.closed.append(table)
        for value in table.values():
            if isinstance(value, dict) and not any(value is inner for inner in self.closed):
                self.close(value)

    def number(self) -> int | float:
        start = self.at
        while self.peek() in _BARE | {"+", "."} and self.peek():
            self.at += 1
        word = self.text[start : self.at]
        try:
            return _number(word)
        except ValueError:
            self.at = start
            raise self.fail(f"{word or self.peek() or 'the end'!r} is not a value; texts need quotes") from None

    def string(self, multiline: bool) -> str:
        quote = self.peek()
        if multiline and self.take(quote * 3):
            self.take("\n")
            text = self.body(quote, quote * 3)
            for _ in range(2):  # up to two quotes may stand before the closing ones
                text += quote if self.take(quote) else ""
            return text
        self.at += 1
        return self.body(quote, quote)

    def body(self, quote: str, closing: str) -> str:
        parts = []
        while not self.take(closing):
            letter = self.peek()
            if not letter or (letter == "\n" and len(closing) == 1):
                raise self.fail("a text does not end")
            if letter != "\n" and letter != "\t" and (letter < " " or letter == "\x7f"):
                raise self.fail(f"a text contains the control character {letter!r}")
            self.at += 1
            if letter == "\\" and quote == '"':
                letter = self.escape(len(closing) == 3)
            parts.append(letter)
        return "".join(parts)

    def escape(self, multiline: bool) -> str:
        letter = self.peek()
        if multiline and letter in (" ", "\t", "\n"):
            rest = self.text[self.at :]
            gap = rest[: len(rest) - len(rest.lstrip(" \t\n"))]
            if "\n" in gap:
                self.at += len(gap)
                return ""
        self.at += 1
        if letter in ("u", "U"):
            digits = self.peek(4 if letter == "u" else 8)
            try:
                code = int(digits, 16) if digits.isalnum() else -1
                if 0xD800 <= code < 0xE000:
                    raise ValueError
                character = chr(code)
            except (ValueError, OverflowError):
                raise self.fail(f"\\{letter}{digits} is not a character") from None
            self.at += len(digits)
            return character
        if letter not in _ESCAPES or letter == "e":
            raise self.fail(f"\\{letter} is not an escape; write \\\\ for a backslash, or use single quotes")
        return _ESCAPES[letter]


def _number(word: str) -> int | float:
    """An integer or a float of TOML. Raises ValueError."""
    digits = word.lstrip("+-")
    if len(word) - len(digits) > 1 or not digits:
        raise ValueError(word)
    if digits in ("inf", "nan"):
        return float(word)
    if digits[:2] in _BASES:
        if digits != word or digits.startswith("_", 2):
            raise ValueError(word)
        return int(digits[2:], _BASES[digits[:2]])
    whole = digits.replace("e", "E").partition("E")[0].partition(".")[0]
    if not whole.replace("_", "").isdecimal() or (whole[0] == "0" and len(whole) > 1):
        raise ValueError(word)
    if not set(digits) - set("0123456789_"):
        return int(word)
    fraction = digits.replace("e", "E").partition("E")[0].partition(".")
    if fraction[1] and not fraction[2].replace("_", "").isdecimal():
        raise ValueError(word)
    return float(word)
