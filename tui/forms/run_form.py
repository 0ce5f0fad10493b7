"""The form of a run, generated from RunSpec: one row per field, with errors while you type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Button, Input, Label, Select

from epochtop.engine.protocol.applicability import applies
from epochtop.engine.protocol.events import Started
from epochtop.engine.protocol.fields import Field, field, fields, parse, show, spec_from
from epochtop.engine.protocol.presets import CHOOSERS, preset
from epochtop.engine.protocol.quantities import format_bytes, plural
from epochtop.engine.protocol.requests import Plan
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.cells.plain import PlainText, plain, set_title
from epochtop.tui.forms.field_row import FieldRow
from epochtop.tui.state.column_lines import heading, short_lines

MAIN = (
    "dataset",
    "target",
    "columns",
    "model",
    "hidden",
    "width",
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "schedule",
    "device",
    "executor",
    "task",
    "name",
)
"""The first fields; the rest follow by group."""


def _in_order() -> list[Field]:
    first = [field(name) for name in MAIN]
    return first + [other for other in fields() if other.name not in MAIN]


def _suggested(spec: RunSpec) -> dict[str, str]:
    """The preset of the dataset and the model of `spec`, for every field."""
    values = preset(spec.dataset, spec.model, spec.task)
    return {about.name: show(values.get(about.name, about.default)) for about in fields()}


def _has_effect(about: Field, texts: Mapping[str, str]) -> bool:
    """Whether a field applies to a run with these texts, or is set."""
    return applies(about.name, texts) or texts[about.name] != show(about.default)


class SpecForm(Vertical):
    """All fields, the plan of the run, and three buttons."""

    BORDER_TITLE = "Run"
    DEFAULT_CSS = """
    SpecForm {
        height: 1fr;
        & > #fields { height: 1fr; scrollbar-size-vertical: 1; }
        & .group { color: $text-muted; margin-top: 1; }
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

        button: str

    def __init__(self, spec: RunSpec, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._initial, self._line = spec, ""
        self._suggested = _suggested(spec)
        """The form's suggestion for every entry; any other text was typed."""
        self.rows: list[FieldRow] = []
        """One row per field, once the form is composed."""
        self._processed: dict[str, str] = {}
        """The texts of the entries when they were last processed."""

    def compose(self) -> ComposeResult:
        """Rows, plan, buttons."""
        texts = {about.name: show(getattr(self._initial, about.name)) for about in _in_order()}
        with VerticalScroll(id="fields", can_focus=False):
            group = ""
            for about in _in_order():
                if about.name not in MAIN and not group:
                    yield PlainText(id="columns-heading", classes="group")
                    yield PlainText(id="columns")
                if about.name not in MAIN and about.group != group:
                    group = about.group
                    yield Label(plain(f"more: {group}"), classes="group")
                value = getattr(self._initial, about.name)
                self.rows.append(FieldRow(about, value, visible=_has_effect(about, texts)))
                yield self.rows[-1]
        yield PlainText(id="plan")
        with Horizontal(id="buttons"):
            yield Button("Start", id="start", variant="success", compact=True, tooltip="Start training (ctrl+s)")
            yield Button("Pause", id="pause", compact=True, disabled=True, tooltip="Pause or resume (space)")
            yield Button(
                "Stop", id="stop", variant="error", compact=True, disabled=True, tooltip="Stop and save (ctrl+x)"
            )

    def on_mount(self) -> None:
        """What is shown is what was composed."""
        self._show_columns("", ())
        self._processed = self._texts()

    # --- reading ---------------------------------------------------------------------------------------

    def spec(self) -> RunSpec:
        """The settings of the fields. Marks wrong fields and raises Invalid."""
        first_error: Invalid | None = None
        for row in self.rows:
            try:
                parse(row.about.name, row.text)
            except Invalid as error:
                row.complain(error.message)
                first_error = first_error or error
            else:
                row.complain("")
        if first_error is not None:
            raise first_error
        try:
            return spec_from({row.about.name: row.text for row in self.rows})
        except Invalid as error:
            self.complain(error.field, error.message)
            raise

    # --- showing ---------------------------------------------------------------------------------------

    def load(self, spec: RunSpec) -> None:
        """Copy a run's settings into the fields."""
        self._suggested = _suggested(spec)
        for row in self.rows:
            row.put(getattr(spec, row.about.name))
        self._process()

    def complain(self, name: str, message: str) -> None:
        """Show an error at its field, or below the fields if it belongs to none."""
        for row in self.rows:
            if row.about.name == name:
                row.complain(message)
                self.say("")  # it was about other settings
                return
        self.say(message, error=True)

    def show_plan(self, plan: Plan | Started, advice: Sequence[str] = ()) -> None:
        """Show the plan of the next run, and `advice` about it and this machine, or the plan of the current run."""
        parts = [
            f"{plural(plan.steps, 'step')} on {plan.device}",
            plural(plan.rows, "row"),
            plural(plan.parameters, "parameter"),
        ]
        if isinstance(plan, Plan):
            if plan.problem:
                parts.insert(0, plan.problem)
            free = f" of {format_bytes(plan.available_bytes)} free" if plan.available_bytes is not None else ""
            parts.append(f"needs about {format_bytes(plan.memory_bytes)}{free}")
        self._show_columns(heading(plan.columns), short_lines(plan.columns))
        notes = plan.notes if isinstance(plan, Plan) else ()
        self.say("\n".join((" · ".join(parts), *advice, *notes)))

    def _show_columns(self, title: str, lines: Sequence[str]) -> None:
        """Show what the run does with the columns of a table, or with other data of the user; nothing without lines."""
        label, text = self.query_one("#columns-heading", PlainText), self.query_one("#columns", PlainText)
        label.display = text.display = bool(lines)
        label.show(title)
        text.show("\n".join(lines))

    def say(self, text: str, error: bool = False) -> None:
        """Show a line below the fields."""
        plan = self.query_one("#plan", PlainText)
        plan.set_class(error, "-error")
        if text != self._line:
            self._line = text
            plan.show(text)

    def show_state(self, can_start: bool, running: bool, paused: bool, describes_open_run: bool = True) -> None:
        """Enable the buttons that work now. The title tells whether the fields can be about the open run."""
        set_title(self, "Run" if describes_open_run else "New run")
        start, pause, stop = (self.query_one(f"#{name}", Button) for name in ("start", "pause", "stop"))
        start.disabled = not can_start
        pause.disabled = stop.disabled = not (running or paused)
        label = "Resume" if paused else "Pause"
        if str(pause.label) != label:
            pause.label = plain(label)

    def focus_first(self) -> None:
        """Focus the first entry that is visible."""
        for row in self.rows:
            if row.display and row.focus_entry():
                return

    def _show_what_applies(self) -> None:
        """Hide fields that have no effect, unless they are set."""
        texts = self._texts()
        for row in self.rows:
            row.reveal(_has_effect(row.about, texts))

    def _texts(self) -> dict[str, str]:
        return {row.about.name: row.text.strip() for row in self.rows}

    def _suggest(self) -> None:
        """Fill fields that the user has not edited with the preset of the dataset and the model."""
        texts = self._texts()
        values = preset(*(texts[name] for name in CHOOSERS))
        for row in self.rows:
            name = row.about.name
            value = show(values.get(name, row.about.default))
            typed = texts[name] != self._suggested[name]
            if name not in ("dataset", "task", "name") and not typed and value != texts[name]:
                self._suggested[name] = value
                row.put(values.get(name, row.about.default))

    # --- events ----------------------------------------------------------------------------------------

    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self, event: Input.Changed | Select.Changed) -> None:
        event.stop()
        self._process()

    def _process(self) -> None:
        """Bring everything that follows from the texts of the entries up to date."""
        before, now = self._processed, self._texts()
        if now == before:  # entries also report their initial texts, which are processed together
            return
        if any(now[name] != before[name] for name in CHOOSERS):
            self._suggest()
        self._processed = self._texts()
        self._show_what_applies()
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
