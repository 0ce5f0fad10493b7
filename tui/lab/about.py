"""The selected experiment: what it measures and why, its fields, the main fields of its job, and quick or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Button, Input, Select

from epochtop.engine.lab.catalog import experiments
from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.applicability import applies
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.fields import Field, field, fields, parse, show, spec_from, texts_of
from epochtop.engine.protocol.presets import CHOOSERS, preset
from epochtop.engine.protocol.quantities import format_age
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.plain import PlainText, set_title
from epochtop.tui.cells.rows import QUIET, TEXT, labeled
from epochtop.tui.cells.view import Words
from epochtop.tui.forms.field_row import FieldRow
from epochtop.tui.lab.saved_results import SavedResult

JOB = ("dataset", "model", "hidden", "width", "batch_size", "optimizer", "device", "executor", "threads", "task")
"""Visible fields of a job; the others keep the values of the experiment or of the Run panel."""
QUICK = Field(
    name="quick",
    kind="switch",
    default=False,
    description="measure for ten seconds only, with fewer rounds",
    group="experiment",
    unit="",
    expects="yes or no",
)


class About(Vertical):
    """The selected experiment: text, fields, buttons."""

    DEFAULT_CSS = """
    About {
        & > VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
        & .fields { height: auto; margin-top: 1; }
        & .specific { height: auto; }
        & > #error { height: auto; max-height: 3; display: none; color: $text-error; }
        & > #error.-visible { display: block; }
        & > #measuring { height: 1; }
        & > #measuring Button { width: auto; min-width: 12; margin: 0 1 0 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", "next field", id="about.next", show=False),
        Binding("up", "app.focus_previous", "previous field", id="about.previous", show=False),
    ]

    @dataclass
    class Pressed(Message):
        """A button: `measure` or `stop`."""

        button: str

    def __init__(self, *, now: Callable[[], float], id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._now = now
        self._words = Words(lambda width: [])
        self._quick = FieldRow(QUICK, False)
        self._job = [FieldRow(field(name), field(name).default) for name in JOB]
        self._specific: dict[str, list[FieldRow]] = {}
        """By experiment that has been selected: the rows of its fields."""
        self._bases = {experiment.name: experiment.job for experiment in experiments()}
        """By experiment: the job it measures, unless a field says otherwise; None if it measures no job."""
        self._suggested: dict[str, str] = {}
        """Texts that the page wrote into the fields of the job; other texts were typed."""
        self.experiment: Experiment = experiments()[0]

    def compose(self) -> ComposeResult:
        """Text, rows, buttons."""
        with VerticalScroll(can_focus=False):
            yield self._words
            with Vertical(classes="fields"):
                yield Vertical(classes="specific")
                yield from self._job
                yield self._quick
        yield PlainText(id="error")
        with Horizontal(id="measuring"):
            yield Button("Measure", id="measure", variant="success", compact=True, tooltip="Run it (ctrl+s)")
            yield Button("Stop", id="stop", variant="error", compact=True, disabled=True, tooltip="Stop it (ctrl+x)")

    # --- showing -----------------------------------------------------------------------------------------

    async def select(self, experiment: Experiment, newest: SavedResult | None) -> None:
        """Show another experiment."""
        if experiment.name not in self._specific:
            rows = [FieldRow(about, about.default) for about in fields(experiment.fields)]
            self._specific[experiment.name] = rows
            await self.query_one(".specific").mount(Vertical(*rows, classes="specific"))
        self.experiment = experiment
        for name, rows in self._specific.items():
            for row in rows:
                row.reveal(name == experiment.name)
        set_title(self, experiment.title)
        self._load(self._bases[experiment.name])
        self.show_newest(newest)
        self.say("")

    def show_newest(self, newest: SavedResult | None) -> None:
        """Describe the experiment and its newest result."""
        experiment, now = self.experiment, self._now()

        def words(width: int) -> list[Row]:
            return [
                *labeled("Measures", [sentence(experiment.measures)], width),
                *labeled("Why", [sentence(experiment.why)], width),
                *labeled("Reading it", [sentence(experiment.reading)], width),
                *labeled("Newest", [_newest(newest, now)] if newest else [], width, TEXT if newest else QUIET),
            ]

        self._words.show(words)

    def set_job(self, spec: RunSpec) -> None:
        """Measure this job; does nothing for experiments that measure no job."""
        if self._bases[self.experiment.name] is None:
            return
        self._bases[self.experiment.name] = spec
        self._load(spec)

    def _load(self, base: RunSpec | None) -> None:
        for row in self._job:
            if base is not None:
                row.put(getattr(base, row.about.name))
            row.complain("")
        self._suggested = self._texts()
        self._show_what_applies()

    def _show_what_applies(self) -> None:
        base = self._bases[self.experiment.name]
        texts = self._all_texts(base or RunSpec())
        for row in self._job:
            row.reveal(base is not None and applies(row.about.name, texts))

    def show_state(self, measuring: bool, can_measure: bool) -> None:
        """Enable the buttons that work now."""
        self.query_one("#measure", Button).disabled = not can_measure
        self.query_one("#stop", Button).disabled = not measuring

    def say(self, text: str) -> None:
        """Show an error below the fields; an empty text hides it."""
        line = self.query_one("#error", PlainText)
        line.set_class(bool(text), "-visible")
        line.show(text)

    def complain(self, name: str, message: str) -> None:
        """Show an error at its field, or below the fields if that is not visible."""
        for row in (*self._specific.get(self.experiment.name, ()), *self._job):
            if row.about.name == name and row.display:
                row.complain(message)
                return
        self.say(f"{name}: {message}" if name else message)

    def focus_first(self) -> None:
        """Focus the first entry."""
        self.query_one("FieldRow Input, FieldRow Select").focus()

    # --- reading -----------------------------------------------------------------------------------------

    @property
    def quick(self) -> bool:
        """Whether the experiment measures for ten seconds only."""
        return self._quick.text == "yes"

    @quick.setter
    def quick(self, quick: bool) -> None:
        self._quick.put(quick)

    def request(self) -> tuple[ExperimentRequest, RunSpec]:
        """The experiment and the job of the fields. Marks a wrong field and raises Invalid."""
        self.say("")
        kind, rows = self.experiment.fields, self._specific.get(self.experiment.name, [])
        try:
            for row in rows:
                row.complain("")
                parse(row.about.name, row.text, kind)
            spec = self._spec()
        except Invalid as error:
            self.complain(error.field, error.message)
            raise
        return ExperimentRequest(
            name=self.experiment.name, fields={row.about.name: row.text for row in rows}, quick=self.quick
        ), spec

    def _spec(self) -> RunSpec:
        base = self._bases[self.experiment.name]
        if base is None:
            return RunSpec()
        for row in self._job:
            row.complain("")
        return spec_from(self._all_texts(base))

    def _all_texts(self, base: RunSpec) -> dict[str, str]:
        """Texts of all fields of a run: typed, else from the job, else the preset for the dataset and the model."""
        texts = texts_of(base) | self._texts()
        if all(texts[name] == show(getattr(base, name)) for name in CHOOSERS):
            return texts
        suits = preset(*(texts[name].strip() for name in CHOOSERS))
        free = {
            name
            for name in suits
            if self._suggested.get(name, texts[name]) == texts[name] and getattr(base, name) == field(name).default
        }
        return texts | {name: show(suits[name]) for name in free}

    def _texts(self) -> dict[str, str]:
        return {row.about.name: row.text.strip() for row in self._job}

    # --- events ------------------------------------------------------------------------------------------

    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self, event: Input.Changed | Select.Changed) -> None:
        event.stop()
        base, before = self._bases[self.experiment.name], self._texts()
        if base is None or not self._suggested or before == self._suggested:
            return
        for name, text in self._all_texts(base).items():
            row = next((row for row in self._job if row.about.name == name), None)
            if row is not None and name not in CHOOSERS and before[name] == self._suggested[name] != text:
                row.put(parse(name, text))
                self._suggested[name] = text
        self._show_what_applies()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.app.action_focus_next()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.post_message(self.Pressed(event.button.id or ""))


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _newest(result: SavedResult, now: float) -> str:
    old = format_age(now - result.created)
    when = "now" if old == "now" else f"{old} ago"
    return f"{result.finding or result.state} ({when})"
