"""One field of a run: caption, entry, and the error below."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label, Select

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


class FieldRow(Vertical):
    """Caption, entry and error of one field."""

    DEFAULT_CSS = """
    FieldRow {
        height: auto;
        & > Horizontal { height: 1; }
        & Label.caption { width: 15; color: $text-muted; }
        & Input, & Select { width: 1fr; }
        & Input.-bad { color: $text-error; }
        & > .error { display: none; color: $text-error; width: 1fr; padding: 0 0 0 1; }
        &.-invalid > .error { display: block; }
        &.-invalid Label.caption { color: $text-error; }
    }
    """

    def __init__(self, about: Field, value: Value) -> None:
        super().__init__(id=f"row-{about.name}")
        self.about, self._value, self._complaint = about, value, ""

    def compose(self) -> ComposeResult:
        """Caption and entry in one line, the error in the next."""
        about = self.about
        unit = f" ({about.unit})" if about.unit in ("s", "ms") else ""
        caption = about.name.removesuffix("_ms").replace("_", " ").capitalize() + unit
        with Horizontal():
            yield Label(plain(caption), classes="caption")
            self._entry = self._make_entry()
            yield self._entry
        yield PlainText(classes="error")

    def _make_entry(self) -> Input | Select[str]:
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
        return str(self._entry.value)

    def put(self, value: Value) -> None:
        """Set the value."""
        self._entry.value = show(value)

    def complain(self, message: str) -> None:
        """Show an error; an empty message hides it."""
        if message != self._complaint:
            self._complaint = message
            self.query_one(".error", PlainText).show(message)
        self.set_class(bool(message), "-invalid")
