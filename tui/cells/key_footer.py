"""The keys at the bottom of a screen, as many as fit: Textual's footer cuts the key at the edge.

It is one widget. Textual's has one per key, and mounts all of them again whenever the focus moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from epochtop.tui.cells.plain import set_tooltip

ESSENTIAL = ("help", "quit", "leave", "back", "dismiss", "cancel")
"""Actions whose keys come before the others: help names all other keys."""


class Key(NamedTuple):
    """A key of the footer."""

    key: str
    display: str
    name: str
    action: str
    enabled: bool
    tooltip: str

    @property
    def cells(self) -> int:
        """Cells of the key and its name."""
        return cell_len(f"{self.display} {self.name}")

    @property
    def is_essential(self) -> bool:
        """Whether it goes before other keys."""
        return self.action.rpartition(".")[2].partition("(")[0] in ESSENTIAL


def keys_of(screen: Screen[Any]) -> list[Key]:
    """The keys of the screen and of the focused widget, one per action, in their order."""
    keys: dict[str, Key] = {}
    for _, binding, enabled, tooltip in screen.active_bindings.values():
        if binding.show and binding.action not in keys:
            display = screen.app.get_key_display(binding)
            keys[binding.action] = Key(binding.key, display, binding.description, binding.action, enabled, tooltip)
    return list(keys.values())


def fitting(keys: Iterable[Key], width: int) -> list[Key]:
    """The keys that fit into `width` cells with a blank between two, in their order. Essential ones and earlier ones go before
    others."""
    keys, room = list(keys), width + 1
    chosen = set()
    for place in sorted(range(len(keys)), key=lambda place: not keys[place].is_essential):
        cells = keys[place].cells + 1
        if cells <= room:
            room -= cells
            chosen.add(place)
    return [key for place, key in enumerate(keys) if place in chosen]


class KeyFooter(Widget):
    """One row of keys. A click presses a key."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"footer--key", "footer--name"}
    DEFAULT_CSS = """
    KeyFooter {
        dock: bottom;
        height: 1;
        color: $footer-foreground;
        background: $footer-background;
        & > .footer--key { color: $footer-key-foreground; background: $footer-key-background; text-style: bold; }
        & > .footer--name { color: $footer-description-foreground; background: $footer-description-background; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[Key] = []
        """The keys that are shown."""

    def on_mount(self) -> None:
        """Follow the focus."""
        self.screen.bindings_updated_signal.subscribe(self, self._follow)
        self.call_after_refresh(self._choose)

    def _follow(self, screen: Screen[Any]) -> None:
        if screen.app.app_focus:
            self.call_after_refresh(self._choose)

    def on_resize(self) -> None:
        """Choose again for another width."""
        self._choose()

    def _choose(self) -> None:
        if not self.is_attached:
            return
        keys = fitting(keys_of(self.screen), self.size.width)  # less than the screen's next to the help
        if keys != self.keys:
            self.keys = keys
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The row."""
        key_style, name_style = (self.get_component_rich_style(f"footer--{part}") for part in ("key", "name"))
        segments = []
        for key in self.keys:
            dim = Style(dim=not key.enabled)
            segments += [Segment(key.display, key_style + dim), Segment(f" {key.name}", name_style + dim)]
            segments.append(Segment(" ", self.rich_style))
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)

    def _places(self) -> Iterator[tuple[range, Key]]:
        start = 0
        for key in self.keys:
            yield range(start, start + key.cells), key
            start += key.cells + 1

    def _key_at(self, x: int) -> Key | None:
        return next((key for cells, key in self._places() if x in cells), None)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Explain the key under the mouse."""
        key = self._key_at(event.x)
        set_tooltip(self, key.tooltip if key is not None else "")

    def on_click(self, event: events.Click) -> None:
        """Press the key under the mouse."""
        key = self._key_at(event.x)
        if key is not None and key.enabled:
            self.app.simulate_key(key.key)
        elif key is not None:
            self.app.bell()
