"""What is typed right after the key that opens an entry, before the entry has the focus.

A fast typist, or a packet of a slow connection, presses `/` and letters at once. Without this class the letters would be
taken for keys of the widget, which stop runs or change the view.
"""

from __future__ import annotations

from textual import events
from textual.widget import Widget
from textual.widgets import Input


class TypeAhead(Widget):
    """Abstract: a widget that has the focus when `/` opens an entry. It keeps what is typed until :meth:`hand_over`.

    It comes last among the bases, because Textual takes styles from the first one.
    """

    _waiting: list[events.Key] | None = None
    """Keys since `/`; None while no entry is opening."""

    def on_key(self, event: events.Key) -> None:
        """Keep a key for the entry."""
        if self._waiting is not None:
            event.stop()
            event.prevent_default()
            self._waiting.append(events.Key(event.key, event.character))
        elif event.key == "slash":
            self._waiting = []

    async def hand_over(self, entry: Input) -> None:
        """Focus the entry and type into it what was kept."""
        keys, self._waiting = self._waiting or [], None
        self.screen.set_focus(entry)
        for key in keys:
            await self.app.on_event(key)
