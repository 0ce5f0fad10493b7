"""The three layouts of a screen, chosen by the terminal's size. Classes on the screen; the CSS does the rest."""

from __future__ import annotations

from textual.geometry import Size

SMALLEST = (60, 15)
"""Below either: only a notice."""
COMPACT = (100, 28)
"""Below either: one region, and one other under it."""
WIDE = (160, 45)
"""From both: everything at once."""


def size_classes(size: Size) -> dict[str, bool]:
    """Which of the classes `-tiny`, `-compact` and `-wide` a screen of this size has.

    For `update_classes`: each change of a screen's classes matches the styles of all its widgets again.
    """
    tiny = size.width < SMALLEST[0] or size.height < SMALLEST[1]
    return {
        "-tiny": tiny,
        "-compact": not tiny and (size.width < COMPACT[0] or size.height < COMPACT[1]),
        "-wide": size.width >= WIDE[0] and size.height >= WIDE[1],
    }
