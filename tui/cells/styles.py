"""How each role looks: the one table of styles, in the app and on a plain terminal. Color is never the only sign."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from epochtop.tui.cells.canvas import BLANK, Row
from epochtop.tui.cells.rows import ALARM, BAD, FAINT, FIRST, FIT, GOOD, HEADING, LEGEND, QUIET, STRONG, TEXT


class Look(NamedTuple):
    """How a role is painted."""

    name: str
    css: str
    """Declarations in Textual CSS."""
    sgr: str = ""
    """Parameters of the terminal's color sequence; empty for its default."""


LOOKS = {
    BLANK: Look("blank", "color: $text;"),
    TEXT: Look("text", "color: $text;"),
    QUIET: Look("quiet", "color: $text-muted;", "2"),
    STRONG: Look("strong", "color: $text; text-style: bold;", "1"),
    GOOD: Look("good", "color: $text-success;", "32"),
    BAD: Look("bad", "color: $text-error;", "31"),
    FIT: Look("fit", "color: $text;", "1"),
    HEADING: Look("heading", "color: $text-muted; text-style: bold;", "1"),
    FAINT: Look("faint", "color: $text-disabled;", "2"),
    ALARM: Look("alarm", "color: $text-error; text-style: bold;", "1;31"),
    FIRST: Look("series-0", "color: $text-primary;", "36"),
    FIRST + 1: Look("series-1", "color: $text-warning;", "33"),
    FIRST + 2: Look("series-2", "color: $text-secondary;", "35"),
    FIRST + 3: Look("series-3", "color: $text-success;", "32"),
    FIRST + 4: Look("series-4", "color: $text-accent;", "34"),
    FIRST + 5: Look("series-5", "color: $foreground-muted;", "31"),
    LEGEND: Look("legend", "color: $foreground;"),
}


def component(role: int) -> str:
    """The component class of a role."""
    return f"cells--{LOOKS[role].name}"


COMPONENTS = {component(role) for role in LOOKS}
RULES = "\n".join(f"& > .{component(role)} {{ {look.css} }}" for role, look in LOOKS.items())
"""The rules of all component classes, to be nested in a widget's own."""


def strip(row: Row, styles: Mapping[int, Style]) -> Strip:
    """A row as a strip of as few segments as possible: blanks join the segment before them."""
    text, roles = row
    merged, current = [], BLANK
    for char, role in zip(text, roles, strict=True):
        if char != " ":
            current = role
        merged.append(current)
    segments, start = [], 0
    for role, run in groupby(merged):
        stop = start + len(list(run))
        segments.append(Segment(text[start:stop], styles[role]))
        start = stop
    return Strip(segments, len(text))


def colored(row: Row) -> str:
    """A row for a terminal, with a color sequence around each stretch of cells in one role."""
    text, start, parts = row.text.rstrip(), 0, []
    for role, run in groupby(row.roles[: len(text)]):
        stop = start + len(list(run))
        piece, code = text[start:stop], LOOKS[role].sgr
        parts.append(f"\x1b[{code}m{piece}\x1b[0m" if code and piece.strip() else piece)
        start = stop
    return "".join(parts)
