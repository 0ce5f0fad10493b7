"""The form of a run, generated from RunSpec: one row a field, errors beside the field as one types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Label, Select, Static

from engine.protocol import Plan, Started
from engine.spec import Field, Invalid, RunSpec, Value, field, fields, parse, show, spec_from
from tui.entry import Entry
from tui.words import bytes_, count

MAIN = ("dataset", "target", "hidden", "epochs", "batch_size", "optimizer", "learning_rate", "device", "name")
"""Fields shown first; the rest follows under "more"."""

SUGGESTIONS = {
    "dataset": ("iris", "wine", "breast_cancer", "digits", "sums", "csv:"),
    "device": ("auto", "cpu", "cuda", "cuda:0", "mps"),
}


def _in_order() -> list[Field]:
    first = [field(name) for name in MAIN]
    return first + [other for other in fields() if other.name not in MAIN]


class FieldRow(Vertical):
    """Label, entry and error of one field."""

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
        self.about, self._value = about, value

    def compose(self) -> ComposeResult:
        """Caption and entry in one line, the error below."""
        about = self.about
        unit = f" ({about.unit})" if about.unit in ("s", "ms") else ""
        caption = about.name.removesuffix("_ms").replace("_", " ").capitalize() + unit
        with Horizontal():
            yield Label(caption, classes="caption")
            yield self._entry()
        yield Static("", classes="error", markup=False)

    def _entry(self) -> Input | Select[str]:
        about, tip = self.about, f"{self.about.description}. {self.about.expects.capitalize()}."
        if about.choices:
            options = [(choice, choice) for choice in about.choices]
            value, name = str(self._value), f"field-{about.name}"
            return Select(options, value=value, allow_blank=False, compact=True, id=name, tooltip=tip)
        known = SUGGESTIONS.get(about.name)
        return Entry(
            show(self._value),
            id=f"field-{about.name}",
            suggester=SuggestFromList(known) if known else None,
            tooltip=tip,
            select_on_focus=False,
        )

    @property
    def text(self) -> str:
        """What the entry holds."""
        entry = self.query_one(f"#field-{self.about.name}")
        return entry.value if isinstance(entry, Input) else str(entry.value)  # type: ignore[attr-defined]

    def put(self, value: Value) -> None:
        """Show another value."""
        entry = self.query_one(f"#field-{self.about.name}")
        if isinstance(entry, Input | Select):
            entry.value = show(value)

    def complain(self, message: str) -> None:
        """Show an error; an empty one takes it away."""
        if message != (self.query_one(".error", Static).content if self.has_class("-invalid") else ""):
            self.query_one(".error", Static).update(message)
        self.set_class(bool(message), "-invalid")


class SpecForm(Vertical):
    """All fields, what Start would do, and the three buttons."""

    BORDER_TITLE = "Run"
    DEFAULT_CSS = """
    SpecForm {
        height: 1fr;
        & > #fields { height: 1fr; scrollbar-size-vertical: 1; }
        & .more { color: $text-muted; margin-top: 1; }
        & > #plan { height: auto; max-height: 5; min-height: 2; color: $text-muted; margin-top: 1; }
        & > #plan.-error { color: $text-error; }
        & > #buttons { height: 1; }
        & > #buttons Button { width: 1fr; min-width: 8; margin: 0 1 0 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "screen.focus_chart", "chart", id="form.leave", tooltip="Leave the form", show=False),
        Binding("down", "app.focus_next", "next field", id="form.next", show=False),
        Binding("up", "app.focus_previous", "previous field", id="form.previous", show=False),
    ]

    @dataclass
    class Edited(Message):
        """The fields changed; `spec` is None while one of them is wrong."""

        spec: RunSpec | None

    @dataclass
    class Pressed(Message):
        """A button: `start`, `pause` or `stop`."""

        what: str

    def __init__(self, spec: RunSpec, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._initial = spec
        self._refused: tuple[RunSpec, str] | None = None

    def compose(self) -> ComposeResult:
        """Rows, plan, buttons."""
        with VerticalScroll(id="fields", can_focus=False):
            for about in _in_order():
                if about.name == next(other.name for other in fields() if other.name not in MAIN):
                    yield Label("more", classes="more")
                yield FieldRow(about, getattr(self._initial, about.name))
        yield Static("", id="plan", markup=False)
        with Horizontal(id="buttons"):
            yield Button("Start", id="start", variant="success", compact=True, tooltip="Train this (ctrl+s)")
            yield Button("Pause", id="pause", compact=True, disabled=True, tooltip="Pause or go on (space)")
            yield Button(
                "Stop", id="stop", variant="error", compact=True, disabled=True, tooltip="Stop and save (ctrl+x)"
            )

    def on_mount(self) -> None:
        """Hide what does not apply."""
        self._show_target()

    # --- reading ---------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[FieldRow]:
        """One a field."""
        return list(self.query(FieldRow))

    def spec(self) -> RunSpec:
        """What the fields say. Raises Invalid, after marking each wrong field."""
        wrong: Invalid | None = None
        for row in self.rows:
            try:
                parse(row.about.name, row.text)
            except Invalid as error:
                row.complain(error.message)
                wrong = wrong or error
            else:
                row.complain("")
        if wrong is not None:
            raise wrong
        try:
            return spec_from({row.about.name: row.text for row in self.rows})
        except Invalid as error:
            self.complain(error.field, error.message)
            raise

    # --- showing ---------------------------------------------------------------------------------------

    def load(self, spec: RunSpec) -> None:
        """Put a run's settings into the fields."""
        for row in self.rows:
            row.put(getattr(spec, row.about.name))

    def complain(self, name: str, message: str) -> None:
        """Show an error beside its field, or under the fields if it belongs to none."""
        for row in self.rows:
            if row.about.name == name:
                row.complain(message)
                self.say("")  # what stood there was told of other settings
                return
        self.say(message, error=True)

    def show_plan(self, plan: Plan | Started) -> None:
        """What Start would do, or what is being done."""
        parts = [
            f"{count(plan.steps, 'step')} on {plan.device}",
            count(plan.rows, "row"),
            count(plan.parameters, "parameter"),
        ]
        if isinstance(plan, Plan):
            free = f" of {bytes_(plan.available_bytes)} free" if plan.available_bytes is not None else ""
            parts.append(f"needs about {bytes_(plan.memory_bytes)}{free}")
        self.say(" · ".join(parts))

    def say(self, text: str, error: bool = False) -> None:
        """A line under the fields."""
        plan = self.query_one("#plan", Static)
        plan.set_class(error, "-error")
        if plan.content != text:
            plan.update(text)

    def show_state(self, can_start: bool, running: bool, paused: bool) -> None:
        """Enable the buttons that do something now."""
        start, pause, stop = (self.query_one(f"#{name}", Button) for name in ("start", "pause", "stop"))
        start.disabled = not can_start
        pause.disabled = stop.disabled = not (running or paused)
        label = "Resume" if paused else "Pause"
        if str(pause.label) != label:
            pause.label = label

    def focus_first(self) -> None:
        """Put the focus on the first entry."""
        self.query_one(f"#field-{MAIN[0]}").focus()

    def _show_target(self) -> None:
        rows = {row.about.name: row for row in self.rows}
        rows["target"].display = rows["dataset"].text.strip().startswith("csv:") or bool(rows["target"].text)

    # --- events ----------------------------------------------------------------------------------------

    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self, event: Message) -> None:
        event.stop()
        self._show_target()
        try:
            spec = self.spec()
        except Invalid:
            self.say("")
            self.post_message(self.Edited(None))
        else:
            self.post_message(self.Edited(spec))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.app.action_focus_next()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.post_message(self.Pressed(event.button.id or ""))
