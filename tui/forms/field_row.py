"""One field of a run: caption, entry, and the error below."""

from __future__ import annotations

import textwrap

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.suggester import SuggestFromList
from textual.widgets import Input, Select

from epochtop.engine.protocol.datasets import BUILT_IN, CACHED, GENERATED, IMAGES, SOURCES
from epochtop.engine.protocol.fields import Field, show
from epochtop.engine.protocol.spec import Value
from epochtop.tui.cells.plain import PlainText, plain
from epochtop.tui.forms.text_entry import Choice, Entry

SUGGESTIONS = {
    "dataset": (*BUILT_IN, *GENERATED, *CACHED, *IMAGES, *(f"{source}:" for source in SOURCES)),
    "encoding": ("auto", "utf-8", "latin-1", "cp1252", "utf-16"),
    "device": ("auto", "cpu", "cuda", "cuda:0", "mps"),
}

CAPTION_WIDTH = 15
"""Cells to the left of an entry."""


class FieldRow(Vertical):
    """Caption and entry of one field, and the error below.

    A form has some sixty, so a row draws its caption itself, and makes its entry when it is first shown.
    """

    DEFAULT_CSS = f"""
    FieldRow {{
        height: auto;
        color: $text-muted;
        & > Input, & > Select {{ width: 1fr; margin-left: {CAPTION_WIDTH}; }}
        & > .error {{ display: none; color: $text-error; width: 1fr; padding: 0 0 0 1; }}
        &.-invalid > .error {{ display: block; }}
        &.-invalid {{ color: $text-error; }}
    }}
    """

    def __init__(self, about: Field, value: Value, *, visible: bool = True) -> None:
        super().__init__(id=f"row-{about.name}")
        self.about, self._value, self._complaint = about, value, ""
        self._entry: Input | Select[str] | None = None
        self._is_composed = False
        self.display = visible
        unit = f" ({about.unit})" if about.unit in ("s", "ms") else ""
        caption = about.name.removesuffix("_ms").replace("_", " ").capitalize() + unit
        self._caption = plain(textwrap.wrap(caption, CAPTION_WIDTH)[0])

    def render(self) -> Text:
        """The caption, left of the entry."""
        return self._caption

    def compose(self) -> ComposeResult:
        """The entry of a visible row."""
        self._is_composed = True
        if self.display:
            self._entry = self._make_entry()
            yield self._entry

    def reveal(self, visible: bool) -> None:
        """Show or hide the row."""
        self.display = visible
        if visible and self._entry is None and self._is_composed:
            self._entry = self._make_entry()
            self.mount(self._entry, before=0 if self.children else None)

    def _make_entry(self) -> Input | Select[str]:
        entry = self._new_entry()
        if len(self._caption) == CAPTION_WIDTH:  # a gap after the longest captions, too
            entry.styles.margin = (0, 0, 0, CAPTION_WIDTH + 1)
        return entry

    def _new_entry(self) -> Input | Select[str]:
        about, tip = self.about, f"{self.about.description}. {self.about.expects.capitalize()}."
        choices = ("no", "yes") if about.kind == "switch" else about.choices
        if choices:
            options = [(plain(choice), choice) for choice in choices]
            value, name = show(self._value), f"field-{about.name}"
            return Choice(options, value, id=name, tooltip=plain(tip))
        suggestions = SUGGESTIONS.get(about.name)
        return Entry(
            show(self._value),
            id=f"field-{about.name}",
            suggester=SuggestFromList(suggestions) if suggestions else None,
            tooltip=plain(tip),
            select_on_focus=False,
        )

    @property
    def text(self) -> str:
        """The text of the entry."""
        return show(self._value) if self._entry is None else str(self._entry.value)

    def put(self, value: Value) -> None:
        """Set the value."""
        self._value = value
        if self._entry is not None:
            self._entry.value = show(value)

    def focus_entry(self) -> bool:
        """Focus the entry; False if there is none yet."""
        if self._entry is not None:
            self._entry.focus()
        return self._entry is not None

    def complain(self, message: str) -> None:
        """Show an error; an empty message hides it."""
        if message != self._complaint:
            self._complaint = message
            self._error_line().show(message)
        self.set_class(bool(message), "-invalid")

    def _error_line(self) -> PlainText:
        for line in self.query(".error").results(PlainText):
            return line
        line = PlainText(classes="error")
        self.mount(line)
        return line
