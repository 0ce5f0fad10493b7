"""The machine panel: what this machine is, once, and how busy it is, every second.

Sensors are read in a thread of their own, which imports what it needs after the first paint; the panel
repaints only rows whose text changed. It must never read a sensor on the event loop: a sick GPU can hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar, Protocol

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from engine.hardware import Machine, Sample, Sampler, identify
from tui.machine_rows import Histories, Row, Span, blocks, compact_height, cut, fit, reasons

INTERVAL_S = 1.0
STALE_AFTER_S = 3.0

_WAITING: Row = (Span("reading the machine …", "unknown"),)


class Source(Protocol):
    """Where the facts come from. Called from one thread only; may be slow, may hang."""

    def identify(self) -> Machine:
        """What the machine is."""

    def sample(self) -> Sample:
        """How busy it is now."""


class ThisMachine:
    """The machine that the app runs on."""

    def __init__(self) -> None:
        self._sampler: Sampler | None = None

    def identify(self) -> Machine:
        """What the machine is."""
        return identify()

    def sample(self) -> Sample:
        """How busy it is now."""
        if self._sampler is None:
            self._sampler = Sampler()
        return self._sampler.sample()


class MachinePanel(Widget, can_focus=True):
    """Identity lines and gauges of one machine.

    With `live` false nothing is read and :meth:`show_machine` and :meth:`show_sample` are called by hand.
    `clock` gives seconds.
    """

    DEFAULT_CSS = """
    MachinePanel {
        height: auto;
        min-height: 6;
        & > .machine--value { color: $text; }
        & > .machine--label { color: $text-muted; }
        & > .machine--graph { color: $text-primary; }
        & > .machine--unknown { color: $text-muted; }
        & > .machine--stale { color: $text-disabled; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "machine--value",
        "machine--label",
        "machine--graph",
        "machine--unknown",
        "machine--stale",
    }

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

    def __init__(
        self,
        source: Source | None = None,
        *,
        live: bool = True,
        clock: Callable[[], float] = time.monotonic,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.border_title = "Machine"
        self._source: Source = source or ThisMachine()
        self._live = live
        self._clock = clock
        self._stop = threading.Event()
        self._machine: Machine | None = None
        self._sample: Sample | None = None
        self._sampled_s: float | None = None
        self._refusal = ""
        self._histories = Histories()
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
        threading.Thread(target=self._read, args=(self._source, self._stop), name="sensors", daemon=True).start()

    def on_unmount(self) -> None:
        """Stop reading."""
        self._stop.set()

    def _read(self, source: Source, stop: threading.Event) -> None:
        try:
            self._post(self.Identified(source.identify()))
            while not stop.is_set():
                self._post(self.Sampled(source.sample()))
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
        self._machine = machine
        self._update()
        self.refresh(layout=True)

    def show_sample(self, sample: Sample) -> None:
        """Show how busy it is and add it to the graphs."""
        self._sample = sample
        self._sampled_s = self._clock()
        self._histories.add(sample)
        self._update()

    def check_age(self) -> None:
        """Mark values that are no longer fresh."""
        if self.is_stale != self.has_class("-stale"):
            self._update()

    def on_resize(self) -> None:
        """Lay the rows out for the new size."""
        self._update()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Rows of identity and gauges; a taller panel shows more."""
        return compact_height(self._machine) if self._machine else 6

    def _update(self) -> None:
        stale = self.is_stale
        if stale != self.has_class("-stale"):
            self.set_class(stale, "-stale")
            self.border_subtitle = "stale" if stale else None
            self.refresh()
        self._explain(stale)
        old, self._rows = self._rows, self._lay_out(self.size)
        for y in range(max(len(old), len(self._rows))):
            if old[y : y + 1] != self._rows[y : y + 1]:
                self.refresh(Region(0, y, self.size.width, 1))

    def _lay_out(self, size: Size) -> list[Row]:
        if self._machine is None:
            reason = self._refusal or "no answer from the sensors"
            return [(Span(cut(f"— {reason}", size.width), "unknown"),)] if self.is_stale else [_WAITING]
        return fit(blocks(self._machine, self._sample, self._histories, size.width), size.width, size.height)

    def _explain(self, stale: bool) -> None:
        lines = reasons(self._machine, self._sample)
        if stale:
            lines.insert(0, self._refusal or f"no answer from the sensors for over {STALE_AFTER_S:.0f} s")
        text = "\n".join(lines) or None
        if text != self.tooltip:
            self.tooltip = text

    def render_line(self, y: int) -> Strip:
        """One row, padded to the width of the panel."""
        base = self.visual_style.rich_style
        row = self._rows[y] if y < len(self._rows) else ()
        segments = [Segment(span.text, self._style(span)) for span in row if span.text]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _style(self, span: Span) -> Style:
        stale = self.has_class("-stale") and span.style in ("value", "graph")
        return self.get_visual_style("machine--stale" if stale else f"machine--{span.style}").rich_style
