"""The machine panel: what this machine is, and how busy it is, every second.

A separate thread reads the sensors. It imports what it needs after the first paint. The panel repaints only cells
that changed. It never reads a sensor on the event loop, because a faulty GPU can block the read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.signal import Signal

from epochtop.engine.hardware import Machine, Sample, UnreadableMachineError
from epochtop.engine.protocol.quantities import UNKNOWN
from epochtop.engine.protocol.requests import Ready
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.gauges import STALE
from epochtop.tui.cells.plain import set_subtitle, set_tooltip
from epochtop.tui.cells.rows import EMPTY, QUIET, cut, fitted, recolored, row
from epochtop.tui.cells.view import CellWidget
from epochtop.tui.machine.facts import gpus_are_old
from epochtop.tui.machine.reasons import reasons
from epochtop.tui.machine.rows import compact_height, panel_rows
from epochtop.tui.machine.source import MachineSource, OtherMachine, ThisMachine
from epochtop.tui.machine.view import MachineView
from epochtop.tui.state.telemetry import RunTelemetry

INTERVAL_S = 1.0
STALE_AFTER_S = 3.0


class MachinePanel(CellWidget, can_focus=True):
    """Identity and gauges of one machine; enter opens the full page.

    With `live` false the panel reads nothing; call :meth:`show_machine` and :meth:`show_sample` instead.
    `clock` returns seconds. By default it stands still in a panel that is not live, so that nothing becomes stale.
    """

    DEFAULT_CSS = """
    MachinePanel {
        height: auto;
        min-height: 6;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open_page", "details", id="machine.page", tooltip="Show everything about this machine"),
        Binding("left", "select(-1)", "previous GPU", id="machine.before", tooltip="Show the previous GPU", show=False),
        Binding("right", "select(1)", "next GPU", id="machine.next", tooltip="Show the next GPU", show=False),
    ]

    class Identified(Message):
        """The machine was identified."""

        def __init__(self, machine: Machine) -> None:
            super().__init__()
            self.machine = machine

    class Sampled(Message):
        """A new sample. It replaces an older one that is still in the queue."""

        def __init__(self, sample: Sample) -> None:
            super().__init__()
            self.sample = sample

        def can_replace(self, message: Message) -> bool:
            """Whether a newer sample is in the queue; only the newest counts."""
            return isinstance(message, MachinePanel.Sampled)

    class Refused(Message):
        """The sensors cannot be read at all."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    class Opened(Message):
        """The user asked for the full page."""

    def __init__(
        self,
        source: MachineSource | None = None,
        *,
        live: bool = True,
        clock: Callable[[], float] | None = None,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.border_title = "Machine"
        self.source: MachineSource = source or ThisMachine()
        self.view = MachineView(starts_engines=not isinstance(self.source, OtherMachine))
        self.changed: Signal[MachineView] = Signal(self, "machine changed")
        self._live = live
        self._clock = clock or (time.monotonic if live else lambda: 0.0)
        self._stop = threading.Event()
        self._sampled_s: float | None = None
        self._refusal = ""

    # --- reading, in a thread -----------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Start reading after the first frame."""
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

    def _read(self, source: MachineSource, stop: threading.Event) -> None:
        try:
            machine = source.identify()
            self._post(self.Identified(machine))
            identified: int | None = None
            while not stop.is_set():
                sample = source.sample()
                is_new = identified is not None and sample.gpus_identified != identified
                if is_new or sample.gpu_count != len(machine.gpus):  # the driver woke late, or a GPU answers again
                    machine = source.identify()
                    self._post(self.Identified(machine))
                identified = sample.gpus_identified
                self._post(self.Sampled(sample))
                stop.wait(INTERVAL_S)
        except UnreadableMachineError as error:
            self._post(self.Refused(str(error)))
        except Exception as error:  # a failing driver must not end the app
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
        """Show why the sensors cannot be read."""
        self._refusal = message.reason
        self._sampled_s = float("-inf")
        self._update()

    # --- showing ------------------------------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        """Whether the newest sample is older than :data:`STALE_AFTER_S`."""
        return self._sampled_s is not None and self._clock() - self._sampled_s > STALE_AFTER_S

    def show_machine(self, machine: Machine) -> None:
        """Show what the machine is."""
        self.view.machine = machine
        self.view.select(0)
        self._update()
        self.refresh(layout=True)

    def show_sample(self, sample: Sample) -> None:
        """Show how busy the machine is, and extend the graphs."""
        self._sampled_s = self._clock()
        self.view.add(sample)
        self._update()

    def show_software(self, ready: Ready) -> None:
        """Show what an engine reports about torch and its devices."""
        self.view.ready = ready
        self._update()

    def show_run(self, telemetry: RunTelemetry | None, memory: str, engine_pid: int | None) -> None:
        """Show how busy the device was during the displayed run, its memory, and its engine if it runs on this machine."""
        self.view.run, self.view.run_memory = telemetry, memory
        self.source.watch_engine(engine_pid)

    def action_select(self, by: int) -> None:
        """Select the GPU that is `by` positions further."""
        self.view.select(by)
        self._update()

    def action_open_page(self) -> None:
        """Open the full page."""
        self.post_message(self.Opened())

    def check_age(self) -> None:
        """Mark figures that have become stale."""
        if self.is_stale != self.has_class("-stale"):
            self._update()

    def on_resize(self) -> None:
        """Lay out for the new size."""
        self._update()

    def on_focus(self) -> None:
        """Mark the selected GPU."""
        self._update()

    def on_blur(self) -> None:
        """Remove the mark."""
        self._update()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Rows for identity and gauges; a taller panel shows more."""
        return compact_height(self.view.machine, width) if self.view.machine else 6

    def _update(self) -> None:
        self.view.stale = self.is_stale
        self.set_class(self.view.stale, "-stale")
        silent = "GPU: no response" if gpus_are_old(self.view.sample) else ""
        set_subtitle(self, "stale" if self.view.stale else silent)
        self._explain()
        self.paint(self._lay_out(self.size))
        self.changed.publish(self.view)

    def _lay_out(self, size: Size) -> list[Row]:
        rows = self._text_rows(size)[: size.height]
        rows += [EMPTY] * (size.height - len(rows))
        return [fitted(recolored(line, STALE) if self.view.stale else line, size.width) for line in rows]

    def _text_rows(self, size: Size) -> list[Row]:
        view = self.view
        if view.machine is None:
            reason = f"{UNKNOWN} {self._refusal or self.source.silence}" if view.stale else "reading the machine …"
            return [row((cut(reason, size.width), QUIET))]
        return panel_rows(view.machine, view.sample, view.histories, *size, view.selected, self.has_focus)

    def _explain(self) -> None:
        lines = reasons(self.view.machine, self.view.sample)
        if self.view.stale:
            lines.insert(0, self._refusal or f"{self.source.silence} for over {STALE_AFTER_S:.0f} s")
        set_tooltip(self, "\n".join(lines))
