"""The machine panel: what this machine is, once, and how busy it is, every second.

Sensors are read in a thread of their own, which imports what it needs after the first paint; the panel
repaints only cells whose text changed. It must never read a sensor on the event loop: a sick GPU can hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.signal import Signal
from textual.strip import Strip
from textual.widget import Widget

from epochtop.engine.hardware import Machine, Sample
from epochtop.engine.protocol.requests import Ready
from epochtop.tui.cells.gauges import Row, Span, cut
from epochtop.tui.machine.reasons import reasons
from epochtop.tui.machine.rows import blocks, compact_height, fit, gpus_are_old
from epochtop.tui.machine.source import Source, ThisMachine
from epochtop.tui.machine.view import MachineView
from epochtop.tui.state.telemetry import RunTelemetry

INTERVAL_S = 1.0
STALE_AFTER_S = 3.0

_WAITING: Row = (Span("reading the machine …", "unknown"),)
STYLES = ("value", "label", "graph", "unknown", "stale", "heading", "bad", "good")
STYLE_RULES = """
        & > .machine--value { color: $text; }
        & > .machine--label { color: $text-muted; }
        & > .machine--graph { color: $text-primary; }
        & > .machine--unknown { color: $text-muted; }
        & > .machine--stale { color: $text-disabled; }
        & > .machine--heading { color: $text-muted; text-style: bold; }
        & > .machine--bad { color: $text-error; }
        & > .machine--good { color: $text; text-style: bold; }
"""
"""Colors of a row's parts, for every widget that paints rows about the machine."""


class MachinePanel(Widget, can_focus=True):
    """Identity lines and gauges of one machine; enter opens all there is to know.

    With `live` false nothing is read and :meth:`show_machine` and :meth:`show_sample` are called by hand.
    `clock` gives seconds; one that is not live has none that goes, so that nothing it shows ages.
    """

    DEFAULT_CSS = f"""
    MachinePanel {{
        height: auto;
        min-height: 6;
        {STYLE_RULES}
    }}
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"machine--{style}" for style in STYLES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open_page", "all of it", id="machine.page", tooltip="Everything about this machine"),
        Binding("left", "select(-1)", "GPU before", id="machine.before", tooltip="Show the GPU before", show=False),
        Binding("right", "select(1)", "next GPU", id="machine.next", tooltip="Show the next GPU", show=False),
    ]

    class Identified(Message):
        """The machine is known."""

        def __init__(self, machine: Machine) -> None:
            super().__init__()
            self.machine = machine

    class Sampled(Message):
        """A second has passed. A newer sample replaces one that nobody has looked at."""

        def __init__(self, sample: Sample) -> None:
            super().__init__()
            self.sample = sample

        def can_replace(self, message: Message) -> bool:
            """A level, not data: only the newest counts."""
            return isinstance(message, MachinePanel.Sampled)

    class Refused(Message):
        """The machine could not be read at all."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    class Opened(Message):
        """All there is to know is wanted."""

    def __init__(
        self,
        source: Source | None = None,
        *,
        live: bool = True,
        clock: Callable[[], float] | None = None,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.border_title = "Machine"
        self.source: Source = source or ThisMachine()
        self.view = MachineView()
        self.changed: Signal[MachineView] = Signal(self, "machine changed")
        self._live = live
        self._clock = clock or (time.monotonic if live else lambda: 0.0)
        self._stop = threading.Event()
        self._sampled_s: float | None = None
        self._refusal = ""
        self._rows: list[Row] = []

    # --- reading, in a thread -----------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Start reading once the first frame is out."""
        if self._live:
            self.call_after_refresh(self._start)
            self.set_interval(INTERVAL_S, self.check_age)

    def _start(self) -> None:
        self._sampled_s = self._clock()
        # A daemon, not a Textual worker: a worker's thread that hangs in a driver would keep the app from exiting.
        threading.Thread(target=self._read, args=(self.source, self._stop), name="sensors", daemon=True).start()

    def on_unmount(self) -> None:
        """Stop reading."""
        self._stop.set()

    def _read(self, source: Source, stop: threading.Event) -> None:
        try:
            machine = source.identify()
            self._post(self.Identified(machine))
            while not stop.is_set():
                sample = source.sample()
                if sample.gpu_count != len(machine.gpus):  # the driver woke late, or lost a card
                    machine = source.identify()
                    self._post(self.Identified(machine))
                self._post(self.Sampled(sample))
                stop.wait(INTERVAL_S)
        except Exception as error:  # whatever a driver does, the app lives and says so
            self._post(self.Refused(f"{type(error).__name__}: {error}"))

    def _post(self, message: Message) -> None:
        try:
            self.post_message(message)
        except RuntimeError:  # the app's event loop is closed
            self._stop.set()

    def on_machine_panel_identified(self, message: Identified) -> None:
        """Show the machine."""
        self.show_machine(message.machine)

    def on_machine_panel_sampled(self, message: Sampled) -> None:
        """Show the sample."""
        self.show_sample(message.sample)

    def on_machine_panel_refused(self, message: Refused) -> None:
        """Show why there is nothing to show."""
        self._refusal = message.reason
        self._sampled_s = float("-inf")
        self._update()

    # --- showing ------------------------------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        """Whether what is shown is older than three seconds."""
        return self._sampled_s is not None and self._clock() - self._sampled_s > STALE_AFTER_S

    def show_machine(self, machine: Machine) -> None:
        """Show what the machine is."""
        self.view.machine = machine
        self.view.select(0)
        self._update()
        self.refresh(layout=True)

    def show_sample(self, sample: Sample) -> None:
        """Show how busy it is and add it to the graphs."""
        self._sampled_s = self._clock()
        self.view.add(sample)
        self._update()

    def show_software(self, ready: Ready) -> None:
        """What a standby engine has told of torch and its devices."""
        self.view.ready = ready
        self._update()

    def show_run(self, telemetry: RunTelemetry | None, memory: str, engine_pid: int | None) -> None:
        """The run that is on the screen: how busy it was, the memory it held, and its engine while it lives here."""
        self.view.run, self.view.run_memory = telemetry, memory
        self.source.watch_engine(engine_pid)

    def action_select(self, by: int) -> None:
        """Move over the GPUs."""
        self.view.select(by)
        self._update()

    def action_open_page(self) -> None:
        """Ask for everything about the machine."""
        self.post_message(self.Opened())

    def check_age(self) -> None:
        """Mark values that are no longer fresh."""
        if self.is_stale != self.has_class("-stale"):
            self._update()

    def on_resize(self) -> None:
        """Lay the rows out for the new size."""
        self._update()

    def on_focus(self) -> None:
        """Mark the selected GPU."""
        self._update()

    def on_blur(self) -> None:
        """Take the mark away."""
        self._update()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Rows of identity and gauges; a taller panel shows more."""
        return compact_height(self.view.machine, width) if self.view.machine else 6

    def _update(self) -> None:
        stale = self.is_stale
        if stale != self.has_class("-stale"):
            self.set_class(stale, "-stale")
            self.refresh()
        subtitle = "stale" if stale else "GPU: no answer" if gpus_are_old(self.view.sample) else None
        if subtitle != (self.border_subtitle or None):
            self.border_subtitle = subtitle
        self._explain(stale)
        old, self._rows = self._rows, self._lay_out(self.size)
        for y in range(max(len(old), len(self._rows))):
            if cells := changed_cells(old[y] if y < len(old) else (), self._rows[y] if y < len(self._rows) else ()):
                self.refresh(Region(cells[0], y, cells[1] - cells[0], 1))
        self.view.stale = stale
        self.changed.publish(self.view)

    def _lay_out(self, size: Size) -> list[Row]:
        view = self.view
        if view.machine is None:
            reason = self._refusal or "no answer from the sensors"
            return [(Span(cut(f"— {reason}", size.width), "unknown"),)] if self.is_stale else [_WAITING]
        found = blocks(view.machine, view.sample, view.histories, size.width, view.selected, self.has_focus)
        return fit(found, size.width, size.height)

    def _explain(self, stale: bool) -> None:
        lines = reasons(self.view.machine, self.view.sample)
        if stale:
            lines.insert(0, self._refusal or f"no answer from the sensors for over {STALE_AFTER_S:.0f} s")
        text = "\n".join(lines) or None
        if text != self.tooltip:
            self.tooltip = text

    def render_line(self, y: int) -> Strip:
        """One row, padded to the width of the panel."""
        base = self.visual_style.rich_style
        row = self._rows[y] if y < len(self._rows) else ()
        return Strip(segments(self, row, self.has_class("-stale"))).adjust_cell_length(self.size.width, base)


def segments(widget: Widget, row: Row, stale: bool) -> list[Segment]:
    """The spans of a row in the widget's styles; values of a machine that does not answer in one of their own."""
    found = []
    for span in row:
        style = "stale" if stale and span.style in ("value", "graph") else span.style
        if span.text:
            found.append(Segment(span.text, widget.get_visual_style(f"machine--{style}").rich_style))
    return found


def changed_cells(old: Row, new: Row) -> tuple[int, int] | None:
    """First and last cell (exclusive) that differ between two rows; None where none does."""
    before, after = ([(letter, span.style) for span in row for letter in span.text] for row in (old, new))
    width = max(len(before), len(after))
    before, after = ([*row, *[(" ", "")] * (width - len(row))] for row in (before, after))
    places = [place for place in range(width) if before[place] != after[place]]
    return (places[0], places[-1] + 1) if places else None
