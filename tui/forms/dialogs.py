"""Dialogs: questions with buttons, and entries for values."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

from epochtop.engine.protocol.fields import parse, show
from epochtop.engine.protocol.spec import Invalid, Value
from epochtop.tui.cells.plain import PlainText, plain
from epochtop.tui.forms.text_entry import Entry

_BOX = """
    align: center middle;
    & > Vertical {
        width: 64;
        max-width: 95%;
        height: auto;
        border: round $border;
        background: $surface;
        padding: 1 2;
    }
    & Label { width: 1fr; }
    & Horizontal { height: 1; margin-top: 1; }
    & Button { margin-right: 2; min-width: 10; }
    & Input { width: 1fr; }
    & .caption { width: 18; }
    & .error { color: $text-error; height: auto; }
"""


class Question(ModalScreen[str]):
    """A question with buttons. The answer is the id of a button; `cancel` for escape."""

    DEFAULT_CSS = f"Question {{ {_BOX} }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "answer('cancel')", "cancel", id="question.cancel"),
        Binding("left", "app.focus_previous", show=False, id="question.previous"),
        Binding("right", "app.focus_next", show=False, id="question.next"),
    ]

    def __init__(self, text: str, answers: tuple[tuple[str, str], ...]) -> None:
        super().__init__()
        self._text, self._answers = text, answers

    def compose(self) -> ComposeResult:
        """Text and buttons; the first is the default."""
        with Vertical():
            yield PlainText(self._text)
            with Horizontal():
                for answer, label in self._answers:
                    yield Button(
                        plain(label), id=answer, compact=True, variant="error" if answer in RISKY else "default"
                    )

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id)

    def action_answer(self, answer: str) -> None:
        """Answer with a key."""
        self.dismiss(answer)


RISKY = ("delete", "stop")
"""Answers whose buttons are red."""


class Entries(ModalScreen[dict[str, str] | None]):
    """Entries for named values. The answer is None if canceled; a wrong value is explained and not accepted."""

    DEFAULT_CSS = f"Entries {{ {_BOX} }}"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel", id="entries.cancel")]

    def __init__(self, text: str, values: dict[str, str], check: Callable[[str, str], Value] = parse) -> None:
        """`check` is given a name and the text of its entry, and raises Invalid; by default, names are fields of RunSpec."""
        super().__init__()
        self._text, self._values, self._check = text, values, check

    def compose(self) -> ComposeResult:
        """One entry per value."""
        with Vertical():
            yield PlainText(self._text)
            for place, (name, value) in enumerate(self._values.items()):
                with Horizontal():
                    yield Label(plain(name.replace("_", " ").capitalize()), classes="caption")
                    yield Entry(value, id=f"entry-{place}")
            yield PlainText(classes="error")
            with Horizontal():
                yield Button("Apply", id="apply", variant="success", compact=True)
                yield Button("Cancel", id="cancel", compact=True)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._apply()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "apply":
            self._apply()
        else:
            self.dismiss(None)

    def _apply(self) -> None:
        texts = {name: self.query_one(f"#entry-{place}", Input).value for place, name in enumerate(self._values)}
        try:
            checked = {name: show(self._check(name, text)) for name, text in texts.items()}
        except Invalid as error:
            self.query_one(".error", PlainText).show(str(error))
            return
        self.dismiss(checked)

    def action_cancel(self) -> None:
        """Close without changes."""
        self.dismiss(None)
