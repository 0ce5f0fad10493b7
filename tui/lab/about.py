"""What an experiment is, and the fields it is measured with: its own, the most important of its job, and quick or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Button, Input, Select, Static

from epochtop.engine.lab.catalog import experiments
from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.applicability import applies
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.fields import Field, field, fields, parse, show, spec_from, texts_of
from epochtop.engine.protocol.presets import CHOOSERS, preset
from epochtop.engine.protocol.quantities import format_age
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import QUIET, TEXT, labelled
from epochtop.tui.cells.view import Words
from epochtop.tui.forms.field_row import FieldRow
from epochtop.tui.lab.kept import Kept

JOB = ("dataset", "model", "hidden", "width", "batch_size", "optimizer", "device", "executor", "threads", "task")
"""Fields of a job that are shown; the others keep what the experiment or the Run panel says."""
QUICK = Field(
    name="quick",
    kind="switch",
    default=False,
    description="in ten seconds, with fewer measurements",
    group="experiment",
    unit="",
    expects="yes or no",
)


class About(Vertical):
    """The experiment under the cursor: words, fields, buttons."""

    DEFAULT_CSS = """
    About {
        & > VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
        & .fields { height: auto; margin-top: 1; }
        & .own { height: auto; }
        & > #told { height: auto; max-height: 3; display: none; color: $text-error; }
        & > #told.-error { display: block; }
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

        what: str

    def __init__(self, *, now: Callable[[], float], id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._now = now
        self._words = Words(lambda width: [])
        self._quick = FieldRow(QUICK, False)
        self._job = [FieldRow(field(name), field(name).default) for name in JOB]
        self._own: dict[str, list[FieldRow]] = {}
        """Rows of the experiments that have been looked at."""
        self._bases = {each.name: each.job for each in experiments()}
        """The job that each measures, where a field says nothing else."""
        self._put: dict[str, str] = {}
        """What was put into the fields of the job: whatever else stands there was typed."""
        self.experiment: Experiment = experiments()[0]

    def compose(self) -> ComposeResult:
        """Words, rows, buttons."""
        with VerticalScroll(can_focus=False):
            yield self._words
            with Vertical(classes="fields"):
                yield Vertical(classes="own")
                yield from self._job
                yield self._quick
        yield Static("", id="told", markup=False)
        with Horizontal(id="measuring"):
            yield Button("Measure", id="measure", variant="success", compact=True, tooltip="Measure it (ctrl+s)")
            yield Button("Stop", id="stop", variant="error", compact=True, disabled=True, tooltip="Stop it (ctrl+x)")

    # --- showing -----------------------------------------------------------------------------------------

    async def look_at(self, experiment: Experiment, newest: Kept | None) -> None:
        """Show this one."""
        if experiment.name not in self._own:
            rows = [FieldRow(about, about.default) for about in fields(experiment.fields)]
            self._own[experiment.name] = rows
            await self.query_one(".own").mount(Vertical(*rows, classes="own"))
        self.experiment = experiment
        for name, rows in self._own.items():
            for row in rows:
                row.display = name == experiment.name
        self.border_title = experiment.title
        self._load(self._bases[experiment.name])
        self.tell(newest)
        self.say("")

    def tell(self, newest: Kept | None) -> None:
        """Put the newest result behind what the experiment says of itself."""
        each, now = self.experiment, self._now()

        def words(width: int) -> list[Row]:
            return [
                *labelled("Measures", [sentence(each.measures)], width),
                *labelled("Why", [sentence(each.why)], width),
                *labelled("Reading it", [sentence(each.reading)], width),
                *labelled("Newest", [_newest(newest, now)] if newest else [], width, TEXT if newest else QUIET),
            ]

        self._words.show(words)

    def take_job(self, spec: RunSpec) -> None:
        """Measure this job."""
        if self._bases[self.experiment.name] is None:
            return
        self._bases[self.experiment.name] = spec
        self._load(spec)

    def _load(self, base: RunSpec | None) -> None:
        for row in self._job:
            if base is not None:
                row.put(getattr(base, row.about.name))
            row.complain("")
        self._put = self._texts()
        self._show_what_applies()

    def _show_what_applies(self) -> None:
        base = self._bases[self.experiment.name]
        texts = self._all_texts(base or RunSpec())
        for row in self._job:
            row.display = base is not None and applies(row.about.name, texts)

    def show_state(self, measuring: bool, can_measure: bool) -> None:
        """Enable the buttons that do something now."""
        self.query_one("#measure", Button).disabled = not can_measure
        self.query_one("#stop", Button).disabled = not measuring

    def say(self, text: str) -> None:
        """An error that belongs to no field."""
        told = self.query_one("#told", Static)
        told.set_class(bool(text), "-error")
        told.update(text)

    def complain(self, name: str, message: str) -> None:
        """Show an error beside its field, or under the fields if it belongs to none that is shown."""
        for row in (*self._own.get(self.experiment.name, ()), *self._job):
            if row.about.name == name and row.display:
                row.complain(message)
                return
        self.say(f"{name}: {message}" if name else message)

    def focus_first(self) -> None:
        """Put the focus on the first entry."""
        self.query_one("FieldRow Input, FieldRow Select").focus()

    # --- reading -----------------------------------------------------------------------------------------

    @property
    def quick(self) -> bool:
        """Whether it is to be measured in ten seconds."""
        return self._quick.text == "yes"

    @quick.setter
    def quick(self, quick: bool) -> None:
        self._quick.put(quick)

    def wanted(self) -> tuple[ExperimentRequest, RunSpec]:
        """What the fields say. Raises Invalid, after marking the wrong field."""
        self.say("")
        kind, rows = self.experiment.fields, self._own.get(self.experiment.name, [])
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
        """Every field of a run: what is typed, else what the job says, else what suits the data and the model."""
        texts = texts_of(base) | self._texts()
        if all(texts[name] == show(getattr(base, name)) for name in CHOOSERS):
            return texts
        suits = preset(*(texts[name].strip() for name in CHOOSERS))
        free = {
            name
            for name in suits
            if self._put.get(name, texts[name]) == texts[name] and getattr(base, name) == field(name).default
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
        if base is None or not self._put or before == self._put:
            return
        for name, text in self._all_texts(base).items():
            row = next((row for row in self._job if row.about.name == name), None)
            if row is not None and name not in CHOOSERS and before[name] == self._put[name] != text:
                row.put(parse(name, text))
                self._put[name] = text
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
    """With a capital and a full stop; code at its beginning stays as it is."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _newest(kept: Kept, now: float) -> str:
    old = format_age(now - kept.created)
    when = "now" if old == "now" else f"{old} ago"
    return f"{kept.finding or kept.state} ({when})"
