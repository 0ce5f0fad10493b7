"""The three layouts of a screen, chosen by the terminal's size. Classes on the screen; the CSS does the rest."""

from __future__ import annotations

from textual.screen import Screen

SMALLEST = (60, 15)
"""Below either: only a notice."""
COMPACT = (100, 28)
"""Below either: one region, and one other under it."""
WIDE = (160, 45)
"""From both: everything at once."""


def lay_out(screen: Screen[None]) -> None:
    """Set the classes `-tiny`, `-compact` and `-wide` for the current size."""
    width, height = screen.app.size
    tiny = width < SMALLEST[0] or height < SMALLEST[1]
    screen.set_class(tiny, "-tiny")
    screen.set_class(not tiny and (width < COMPACT[0] or height < COMPACT[1]), "-compact")
    screen.set_class(width >= WIDE[0] and height >= WIDE[1], "-wide")
