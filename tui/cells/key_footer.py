"""The keys at the bottom of a screen. Textual's footer cuts the key at the edge; this one leaves out what does not fit."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

GAP = 1
"""Blanks between two keys."""
ESSENTIAL = ("help", "quit", "leave", "back", "dismiss", "cancel")
"""Actions whose keys come before the others: help names all other keys."""


class KeyFooter(Footer):
    """The keys of the screen and of the focused widget, as many as fit."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False, compact=True)
        self._width = 0

    def compose(self) -> ComposeResult:
        """The keys that fit, in their order."""
        self._width = self.app.size.width
        keys = [key for key in super().compose() if isinstance(key, FooterKey)]
        yield from fitting(keys, self._width)

    def on_resize(self, _event: events.Resize) -> None:
        """Choose again for another width."""
        if self.app.size.width != self._width:
            self.call_after_refresh(self.recompose)


def fitting(keys: Iterable[FooterKey], width: int) -> list[FooterKey]:
    """The keys that fit into `width` cells, in their order. Essential ones and earlier ones go before others."""
    keys, room = list(keys), width + GAP
    chosen = set()
    for place in sorted(range(len(keys)), key=lambda place: not _is_essential(keys[place])):
        cells = cells_of(keys[place]) + GAP
        if cells <= room:
            room -= cells
            chosen.add(place)
    return [key for place, key in enumerate(keys) if place in chosen]


def cells_of(key: FooterKey) -> int:
    """Cells of a key and its name."""
    return cell_len(f"{key.key_display} {key.description}")


def _is_essential(key: FooterKey) -> bool:
    return key.action.rpartition(".")[2].partition("(")[0] in ESSENTIAL
