"""Entries of one row: a text that keeps the order of keys, however they arrive, and a choice.

Both begin with the classes that Textual would give them one by one, computing all styles again each time. In a form of sixty
fields that was a third of the time to build it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.content import ContentText
from textual.reactive import reactive
from textual.widgets import Input, OptionList, Select
from textual.widgets._select import SelectCurrent

COMPACT, VALID, HAS_VALUE = "-textual-compact", "-valid", "-has-value"
"""Classes of Textual."""


class Entry(Input):
    """An Input of one row. Its cursor does not blink, which would cost 2.3 KB/s over SSH."""

    compact: reactive[bool] = reactive(True, toggle_class=COMPACT)

    def __init__(self, value: str, **options: Any) -> None:
        super().__init__(value, compact=True, classes=f"{COMPACT} {VALID}", **options)
        self.cursor_blink = False

    async def _on_key(self, event: events.Key) -> None:
        """Run the actions of backspace, enter and arrows at once. Textual routes them through the app, and letters from
        the same packet of a slow connection would overtake them."""
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            if not event.is_printable and await self.app.run_action(binding.action, self):
                event.stop()
                event.prevent_default()
                return


class Choice(Select[str]):
    """A Select of one row; it always has a value."""

    compact: reactive[bool] = reactive(True, toggle_class=COMPACT)

    def __init__(self, choices: Sequence[tuple[ContentText, str]], value: str, **options: Any) -> None:
        super().__init__(choices, value=value, allow_blank=False, compact=True, classes=COMPACT, **options)

    def compose(self) -> ComposeResult:
        """The current value, and the list that opens."""
        for part in super().compose():
            if isinstance(part, SelectCurrent):
                part.set_reactive(SelectCurrent.has_value, True)
                part.add_class(HAS_VALUE, update=False)
            elif isinstance(part, OptionList):
                part.set_reactive(OptionList.compact, True)
                part.add_class(COMPACT, update=False)
            yield part
