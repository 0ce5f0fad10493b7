"""Rows of characters about an experiment: text in roles, wrapped and cut to a width. Knows no widget.

A row is what :mod:`epochtop.tui.chart.plotting` draws: characters, and the role of each; roles become colors, here for a terminal and in
:mod:`epochtop.tui.cells.view` for the app. Nothing is told by color alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rich.cells import cell_len

from epochtop.tui.cells.canvas import BLANK, Row

TEXT, QUIET, STRONG, GOOD, BAD, FIT = range(1, 7)
FIRST = 10
"""The role of the first series; others follow."""
SERIES = 6
"""Series that have a look of their own; more begin again."""
STYLES = {
    BLANK: "text",
    TEXT: "text",
    QUIET: "quiet",
    STRONG: "strong",
    GOOD: "good",
    BAD: "bad",
    FIT: "fit",
    **{FIRST + place: f"series-{place}" for place in range(SERIES)},
}
"""The name of the style of each role."""

_SGR = {QUIET: "2", STRONG: "1", GOOD: "32", BAD: "31", FIT: "1"} | {
    FIRST + place: str(code) for place, code in enumerate((36, 33, 35, 32, 34, 31))
}


def role_of(place: int) -> int:
    """The role of a series, by its place."""
    return FIRST + place % SERIES


def row(*parts: tuple[str, int]) -> Row:
    """A row of texts in their roles, from the left. A character that is not one cell wide becomes `?`."""
    return cleaned("".join(part for part, _ in parts)), tuple(role for part, role in parts for _ in part)


def cleaned(text: str) -> str:
    """Nothing that moves the cursor, and one cell a character; what is left out is a `?`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() and cell_len(char) == 1 else "?" for char in text)


def cut(text: str, width: int) -> str:
    """At most `width` cells; what is cut has a mark at its end."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"[: max(0, width)]


def shortened(text: str, width: int) -> str:
    """At most `width` cells, cut in the middle: names often differ at their ends."""
    if len(text) <= width:
        return text
    end = max(0, (width - 1) // 3)
    return text[: max(0, width - 1 - end)] + "…" + text[len(text) - end :]


def fitted(found: Row, width: int) -> Row:
    """Exactly `width` cells."""
    text, roles = found
    return text[:width].ljust(width), (*roles, *[BLANK] * (width - len(roles)))[:width]


def wrapped(text: str, width: int, role: int = TEXT, first: str = "", rest: str | None = None) -> list[Row]:
    """Sentences in rows of at most `width` cells; `first` and `rest` stand before the first line and the others."""
    indent = " " * len(first) if rest is None else rest
    lines = textwrap.wrap(text, max(10, width), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return [_labelled(line, first, role) if place == 0 else row((line, role)) for place, line in enumerate(lines)]


def _labelled(line: str, label: str, role: int) -> Row:
    return row((label, QUIET), (line[len(label) :], role))


def side_by_side(parts: Iterable[tuple[str, str, int]], width: int, most: int) -> list[Row]:
    """Samples and their names, as many a row as there is room for; at most so many rows, then how many are left out."""
    rows: list[list[tuple[str, int]]] = [[]]
    used, shown = 0, 0
    every = list(parts)
    for sample, name, role in every:
        cells = len(sample) + 1 + len(name) + (3 if used else 0)
        spare = MORE_CELLS if len(rows) == most and shown + 1 < len(every) else 0
        if used and used + cells + spare > width:
            if len(rows) == most:
                break
            rows.append([])
            used, cells = 0, cells - 3
        rows[-1] += [("   " if used else "", BLANK), (sample, role), (f" {cut(name, width - 2)}", TEXT)]
        used, shown = used + cells, shown + 1
    if shown < len(every):
        rows[-1].append((cut(f"   … {len(every) - shown} more", max(0, width - used)), QUIET))
    return [row(*parts) for parts in rows if parts]


MORE_CELLS = 12
"""That the number of those that are left out needs."""


def plain(found: Row) -> str:
    """A row without its roles."""
    return found[0].rstrip()


def colored(found: Row) -> str:
    """A row for a terminal: runs of characters of one role, with its color."""
    text, roles = found[0].rstrip(), found[1]
    parts, start = [], 0
    for place in range(1, len(text) + 1):
        if place == len(text) or roles[place] != roles[start]:
            code = _SGR.get(roles[start])
            piece = text[start:place]
            parts.append(f"\x1b[{code}m{piece}\x1b[0m" if code and piece.strip() else piece)
            start = place
    return "".join(parts)


def labelled(label: str, sentences: Iterable[str], width: int, role: int = TEXT) -> list[Row]:
    """Sentences behind a word that says what they are; several of them with a mark each."""
    several = list(sentences)
    mark = "· " if len(several) > 1 else ""
    rows: list[Row] = []
    for place, sentence in enumerate(several):
        first = ("" if place else label).ljust(LABEL) + mark
        rows += wrapped(sentence, width, role, first)
    return rows


LABEL = 11
"""Cells of the words that say what a sentence is."""


EMPTY: Row = ("", ())
