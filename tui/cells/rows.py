"""The roles of cells and every operation on rows: compose, wrap, cut, compare.

Pure functions, so that tests read characters. How a role looks is in :mod:`epochtop.tui.cells.styles`.
Never imports Textual.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from rich.cells import cell_len

from epochtop.tui.cells.canvas import BLANK, Row

TEXT, QUIET, STRONG, GOOD, BAD, FIT, HEADING, FAINT, ALARM = range(1, 10)
FIRST = 10
"""The role of the first series; the other series follow."""
SERIES = 6
"""Number of series with different looks; further series start over."""
LEGEND = FIRST + SERIES
LABEL = 11
"""Width of the labels in front of sentences."""
MORE_CELLS = 12
"""Width reserved for "… N more"."""
EMPTY = Row("", ())


def role_of(place: int) -> int:
    """The role of a series, by its position."""
    return FIRST + place % SERIES


# --- composing ---------------------------------------------------------------------------------------------


def row(*parts: tuple[str, int]) -> Row:
    """A row of texts and their roles, from left to right. A character that is not one cell wide becomes `?`."""
    roles: list[int] = []
    for part, role in parts:
        roles += [role] * len(part)
    return Row(cleaned("".join([part for part, _ in parts])), tuple(roles))


def cleaned(text: str) -> str:
    """`text` with one cell per character. Control, zero-width and wide characters become `?`."""
    if text.isprintable() and (text.isascii() or all(map(_is_one_cell, set(text)))):
        return text
    return "".join(char if char.isprintable() and _is_one_cell(char) else "?" for char in text)


@lru_cache(maxsize=1024)
def _is_one_cell(char: str) -> bool:
    return cell_len(char) == 1


def captioned(label: str, lines: Sequence[str], label_width: int, role: int = TEXT) -> list[Row]:
    """A row per line, with the label in front of the first one."""
    return [row((("" if place else label).ljust(label_width), QUIET), (line, role)) for place, line in enumerate(lines)]


def labeled(label: str, sentences: Iterable[str], width: int, role: int = TEXT) -> list[Row]:
    """Wrapped sentences with a label in front. Two or more sentences get a bullet each."""
    texts = list(sentences)
    bullet = "· " if len(texts) > 1 else ""
    rows: list[Row] = []
    for place, sentence in enumerate(texts):
        first = ("" if place else label).ljust(LABEL) + bullet
        rows += wrapped(sentence, width, role, first)
    return rows


def joined(left: Row, right: Row, column: int) -> Row:
    """`right` placed at `column` next to `left`; just `left` if `right` is empty."""
    if not right.text:
        return left
    left = fitted(left, column)
    return Row(left.text + right.text, left.roles + right.roles)


def side_by_side(parts: Iterable[tuple[str, str, int]], width: int, most: int) -> list[Row]:
    """Samples with their names, filling at most `most` rows of `width` cells. The last row counts the omitted ones."""
    rows: list[list[tuple[str, int]]] = [[]]
    used, placed = 0, 0
    samples = list(parts)
    for sample, name, role in samples:
        cells = len(sample) + 1 + len(name) + (3 if used else 0)
        spare = MORE_CELLS if len(rows) == most and placed + 1 < len(samples) else 0
        if used and used + cells + spare > width:
            if len(rows) == most:
                break
            rows.append([])
            used, cells = 0, cells - 3
        rows[-1] += [("   " if used else "", BLANK), (sample, role), (f" {cut(name, width - 2)}", TEXT)]
        used, placed = used + cells, placed + 1
    if placed < len(samples):
        rows[-1].append((cut(f"   … {len(samples) - placed} more", max(0, width - used)), QUIET))
    return [row(*parts) for parts in rows if parts]


# --- fitting into a width ----------------------------------------------------------------------------------


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells; "…" marks a cut."""
    return text if len(text) <= width else text[: max(0, width - 1)].rstrip() + "…" * (width > 0)


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` cells, cut in the middle because names often differ at their ends."""
    if len(text) <= width:
        return text
    end = max(0, (width - 1) // 3)
    return text[: max(0, width - 1 - end)] + "…" + text[len(text) - end :]


def fitted(source: Row, width: int) -> Row:
    """`source` in exactly `width` cells, clipped or padded with blanks."""
    text, roles = source
    missing = width - len(text)
    if missing > 0:
        return Row(text + " " * missing, (*roles, *[BLANK] * missing))
    return Row(text[:width], roles[:width]) if missing else source


def wrapped_lines(text: str, width: int, most: int) -> list[str]:
    """`text` wrapped into at most `most` lines of `width` cells; the last line is cut if there is more."""
    lines = textwrap.wrap(text, max(1, width), break_on_hyphens=False)
    return [*lines[: most - 1], cut(" ".join(lines[most - 1 :]), width)] if len(lines) > most else lines


def wrapped(text: str, width: int, role: int = TEXT, first: str = "", rest: str | None = None) -> list[Row]:
    """`text` wrapped into rows of `width` cells. `first` precedes the first line, `rest` the other lines."""
    indent = " " * len(first) if rest is None else rest
    lines = textwrap.wrap(text, max(10, width), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return [
        row((line[: len(first)], QUIET), (line[len(first) :], role)) if place == 0 else row((line, role))
        for place, line in enumerate(lines)
    ]


# --- comparing and reading ---------------------------------------------------------------------------------


def difference(old: Row, new: Row) -> tuple[int, int] | None:
    """The range of cells that differ between rows of the same width, end exclusive; None if they are equal."""
    if old == new:
        return None
    changed = [i for i, (a, b) in enumerate(zip(zip(*old, strict=True), zip(*new, strict=True), strict=True)) if a != b]
    return changed[0], changed[-1] + 1


def recolored(source: Row, roles: Mapping[int, int]) -> Row:
    """The same characters with some roles replaced."""
    return Row(source.text, tuple(roles.get(role, role) for role in source.roles))


def uncolored(source: Row) -> str:
    """The characters of a row without trailing blanks."""
    return source.text.rstrip()
