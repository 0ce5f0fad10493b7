"""The chart of a family of series, the loss at first: a widget that draws on request, and then repaints only the cells
that changed.

It has no timer and no clock. The app feeds it events and calls :meth:`LossChart.redraw` at its own pace; without new
data, a call costs nothing. :mod:`epochtop.tui.chart.frame` composes the rows. Never imports plotext.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive

from epochtop.engine.protocol.events import Event, Failed, Finished, ScriptEnded, Started
from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.cells.plain import set_subtitle, set_title
from epochtop.tui.cells.rows import cut
from epochtop.tui.cells.view import CellWidget
from epochtop.tui.chart import frame
from epochtop.tui.chart.curves import BandKind, ChartView
from epochtop.tui.chart.keys import KEYS
from epochtop.tui.chart.trace import Trace, Unit, heading
from epochtop.tui.chart.x_range import RANGE_TEXTS, RangeMode, scaled, tail_ends, whole_end, whole_start, within

SMOOTHING = (0.0, 0.6, 0.9, 0.97)
UNITS: tuple[Unit, ...] = ("step", "epoch", "seconds", "clock")
UNITS_OF_A_SWEEP: tuple[Unit, ...] = ("rate", *UNITS)


class LossChart(CellWidget, can_focus=True):
    """A family of series of a run, such as its training and test loss, live, with other runs as overlays."""

    BORDER_TITLE = "Loss"
    DEFAULT_CSS = """
    LossChart {
        width: 1fr;
        height: 1fr;
        min-height: 6;
        border: round $border-blurred;
        border-title-color: $text;
        color: $foreground;
        &:focus { border: round $border; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]

    log_scale: reactive[bool] = reactive(False, repaint=False)
    log_x: reactive[bool] = reactive(False, repaint=False)
    hide_outliers: reactive[bool] = reactive(False, repaint=False)
    band: reactive[BandKind] = reactive[BandKind]("deviation", repaint=False)
    """What the band of a group shows."""
    smoothing: reactive[float] = reactive(0.0, repaint=False)
    unit: reactive[Unit] = reactive[Unit]("step", repaint=False)
    range_mode: reactive[RangeMode] = reactive[RangeMode]("whole", repaint=False)
    cursor: reactive[int | None] = reactive[int | None](None, repaint=False)
    """The step at the cursor; None if the cursor is off."""
    empty_text: reactive[str] = reactive("", repaint=False)
    """Text in place of the chart while there is no run."""

    @dataclass
    class Picked(Message):
        """Draw another family of series, whose history must be read again; ask which one if it is empty."""

        family: str = ""

    def __init__(self, *, empty_text: str = "", id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self.set_reactive(LossChart.empty_text, empty_text)
        self.trace = Trace()
        """The displayed run; another chart may have it as an overlay."""
        self.overlays: tuple[Trace, ...] = ()
        """The runs behind it."""
        self.total_steps: int | None = None
        self.marker = "auto"
        """A marker of :mod:`epochtop.tui.chart.plotting`, or `auto`: braille in small plots, blocks in large ones."""
        self._has_run = self._ended = False
        self._footer, self._heading = "", str(self.BORDER_TITLE)
        self.columns: int | None = None
        """Columns of the plots that the board draws in place of this one; None while this one is visible."""
        self._drawn_runs: list[list[int]] = []
        """Identities of the runs of each curve, when they were last set."""
        self._zoom = (0.0, 1.0)
        self._stale = True
        self._ranges = frame.Ranges()

    # --- what the app calls ------------------------------------------------------------------------------------

    def show(self, trace: Trace, total_steps: int | None) -> None:
        """Show a run, which may have losses already. `total_steps` None means an unknown length."""
        self._has_run = True
        self._exchange(trace, total_steps)

    def _exchange(self, trace: Trace, total_steps: int | None) -> None:
        if self.unit not in UNITS:
            self.unit = "step"
        self.trace, self.total_steps, self._ended = trace, total_steps, False
        self._show_heading()
        self.cursor = None
        self.range_mode = "whole"
        if trace.sweep is not None:
            self.unit = "rate"
        self._reset()

    def clear(self) -> None:
        """Show no run."""
        self._has_run = False
        self._exchange(Trace(), None)

    def feed(self, event: Event) -> None:
        """Take an event of the run; events without data for the chart are ignored."""
        if isinstance(event, Started):
            self.total_steps = event.steps
        family = self.trace.family
        if self.trace.feed(event):
            self._has_run = self._stale = True
            if self.trace.family != family:
                self._show_heading()
        elif isinstance(event, Finished | Failed | ScriptEnded):
            self.finish()

    def refilled(self) -> None:
        """The trace draws another family."""
        self._show_heading()
        self._reset()

    def grown(self) -> None:
        """The trace has more values than :meth:`feed` gave it."""
        self._stale = True

    def _show_heading(self) -> None:
        group = f" · {self.trace.group}, mean of {len(self.trace.runs)} runs" if self.trace.peers else ""
        title = cut(plain_line(heading(self.trace.family) + group), max(8, self.size.width - 4))
        if title != self._heading:
            self._heading = title
            set_title(self, title)

    def finish(self) -> None:
        """End the x axis at the end of the run."""
        if not self._ended:
            self._ended = True
            self._reset()

    def set_footer(self, line: str) -> None:
        """Show a line in the lower border, cut to its width; repainted when it changes."""
        footer = cut(plain_line(line), max(1, self.size.width - 4))
        if footer != self._footer:
            self._footer = footer
            set_subtitle(self, footer)

    def set_overlays(self, overlays: Sequence[Trace]) -> None:
        """Show these runs and groups behind the run. For those already there, :meth:`redraw` shows their new losses."""
        self.overlays, self._stale = tuple(overlays), True
        runs = [[id(run) for run in curve.runs] for curve in (self.trace, *overlays)]
        if runs != self._drawn_runs:
            self._drawn_runs = runs
            self._show_heading()
            self._reset()

    def redraw(self) -> int:
        """Draw new data and return the number of rows that changed. Call it at the screen's pace."""
        if not self._stale or not self.size:
            return 0
        self._stale = False
        return self.paint(frame.compose(self._content(), self._ranges))

    # --- drawing -----------------------------------------------------------------------------------------------

    def _content(self) -> frame.ChartContent:
        return frame.ChartContent(
            width=self.size.width,
            height=self.size.height,
            trace=self.trace,
            overlays=self.overlays,
            view=self.view,
            cursor=self.cursor,
            range_text=RANGE_TEXTS[self.range_mode],
            marker=self.marker,
            empty_text=self._empty_text(),
        )

    def _empty_text(self) -> str:
        """What is shown instead of an empty plot. A run of known length has a plot from the start."""
        if self.overlays or self.trace.peers or not self._has_run:
            return "" if self.overlays or self.trace.peers else self.empty_text
        is_empty = self.trace.steps == 0 and (self._ended or not self.total_steps)
        return frame.NO_VALUES[self._ended] if is_empty else ""

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """All available rows."""
        return container.height

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._reset()

    def _reset(self) -> None:
        """Draw now, with fresh ranges."""
        self._ranges = frame.Ranges()
        self._stale = True
        if self.is_mounted:
            self.redraw()

    def watch_log_scale(self) -> None:
        """Draw with the new setting at once."""
        self._reset()

    watch_smoothing = watch_unit = watch_range_mode = watch_empty_text = watch_log_scale
    watch_log_x = watch_hide_outliers = watch_band = watch_log_scale

    def watch_cursor(self) -> None:
        """Draw the cursor at once, with the same ranges."""
        self._stale = True
        if self.is_mounted:
            self.redraw()

    # --- the visible range ---------------------------------------------------------------------------------------

    @property
    def view(self) -> ChartView:
        """The visible part; a column per cell."""
        low, high = self.bounds()
        width = max(2, self.columns or self.size.width - self._ranges.gutter)
        return ChartView(
            low, high, self.unit, width, self.smoothing, self.log_scale, self.log_x, self.hide_outliers, self.band
        )

    def bounds(self) -> tuple[float, float]:
        """The ends of the x axis, in its unit."""
        if self.range_mode == "zoomed":
            return self._zoom
        if self.range_mode == "tail":
            return tail_ends(self.trace, self.unit)
        return whole_start(self.trace, self.unit), self._whole()

    def _whole(self) -> float:
        behind = [run for curve in (self.trace, *self.overlays) for run in curve.runs if run is not self.trace]
        return whole_end(self.trace, behind, self.total_steps, self.unit, self._ended)

    def action_zoom(self, factor: float) -> None:
        """Scale the visible range around the cursor, or around the end of the visible losses."""
        self._zoom_around(factor, None if self.cursor is None else self.trace.from_step(self.cursor, self.unit))

    def _zoom_around(self, factor: float, x: float | None) -> None:
        last = self.trace.from_step(max(1, self.trace.steps), self.unit)
        self._set_range(*scaled(self.bounds(), factor, x, last))

    def _set_range(self, low: float, high: float) -> None:
        """Show this range, limited to the run. A range of the run's length shows the whole run again."""
        whole = self._whole()
        self._zoom = within(low, high, self.trace, self.unit, whole)
        old_mode = self.range_mode
        length = whole - whole_start(self.trace, self.unit)
        self.range_mode = "whole" if self._zoom[1] - self._zoom[0] >= length * (1 - 1e-9) else "zoomed"
        if old_mode == self.range_mode == "zoomed":
            self._reset()

    def action_pan(self, direction: int) -> None:
        """Move the visible range by a quarter of itself."""
        low, high = self.bounds()
        if self.range_mode == "whole":
            return
        shift = (high - low) / 4 * direction
        self._set_range(low + shift, high + shift)

    def action_toggle_whole(self) -> None:
        """The whole run, or its last part."""
        self.range_mode = "tail" if self.range_mode == "whole" else "whole"

    # --- settings --------------------------------------------------------------------------------------------------

    def action_toggle_log(self) -> None:
        """Logarithmic or linear loss axis."""
        self.log_scale = not self.log_scale

    def action_toggle_log_x(self) -> None:
        """Logarithmic or linear x axis."""
        self.log_x = not self.log_x

    def action_toggle_outliers(self) -> None:
        """Hide the highest and the lowest 1 % of the values, or show all."""
        self.hide_outliers = not self.hide_outliers

    def action_toggle_band(self) -> None:
        """The band of a group: standard deviation, or lowest to highest."""
        self.band = "range" if self.band == "deviation" else "deviation"

    def action_cycle_smoothing(self) -> None:
        """More smoothing; after the strongest, none."""
        self.smoothing = SMOOTHING[(SMOOTHING.index(self.smoothing) + 1) % len(SMOOTHING)]

    def action_cycle_unit(self) -> None:
        """Switch between steps, epochs, seconds, time of day and series that count. The visible steps stay the same."""
        low, high = (self.trace.to_step(x, self.unit) for x in self._zoom)
        units = [unit for unit in (UNITS_OF_A_SWEEP if self.trace.sweep else UNITS) if self._can_show(unit)]
        units += self.trace.counter_units
        unit = units[(units.index(self.unit) + 1) % len(units)] if self.unit in units else units[0]
        self._zoom = (self.trace.from_step(low, unit), self.trace.from_step(high, unit))
        if self.range_mode == "zoomed" and self._zoom[1] <= self._zoom[0]:
            self.range_mode = "whole"
        self.unit = unit

    def _can_show(self, unit: Unit) -> bool:
        """Whether the run has this x axis."""
        if unit == "clock":
            return self.trace.run.clock.known
        return unit != "epoch" or self.total_steps is not None or self.trace.epoch_known

    def action_step_family(self, direction: int) -> None:
        """Draw the next or the previous series."""
        families = self.trace.families
        if len(families) > 1:
            place = families.index(self.trace.family) if self.trace.family in families else 0
            self.post_message(self.Picked(families[(place + direction) % len(families)]))

    def action_pick_family(self) -> None:
        """Choose the series to draw, by typing."""
        self.post_message(self.Picked())

    # --- the cursor ------------------------------------------------------------------------------------------------

    def action_toggle_cursor(self) -> None:
        """Put the cursor on the last visible step, or turn it off."""
        if self.cursor is not None:
            self.cursor = None
        elif self.trace.steps:
            self._place(self.bounds()[1])

    def _place(self, x: float) -> None:
        step = floor(self.trace.to_step(x, self.unit) + 1e-6)
        self.cursor = max(0, min(step, self.trace.steps - 1)) if self.trace.steps else None

    def action_move(self, cells: int) -> None:
        """Move the cursor by `cells`, at least by one step; without a cursor, pan."""
        if self.cursor is None:
            self.action_pan(1 if cells > 0 else -1)
            return
        old, view = self.cursor, self.view
        self._place(view.x(view.cell(self.trace.from_step(old, self.unit)) + cells))
        if self.cursor == old:
            last = self.trace.steps - 1
            self.cursor = max(0, min(last, old + (1 if cells > 0 else -1)))
        self._follow_cursor()

    def _follow_cursor(self) -> None:
        low, high = self.bounds()
        if self.cursor is None or self.range_mode != "zoomed":
            return
        x = self.trace.from_step(self.cursor, self.unit)
        if not low <= x <= high:
            shift = x - low if x < low else x - high
            self._set_range(low + shift, high + shift)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the step under the mouse."""
        x = self._x_at(event)
        if x is not None:
            self._place(x)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Zoom in around the mouse."""
        self._scroll(event, 0.8)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Zoom out around the mouse."""
        self._scroll(event, 1.25)

    def _scroll(self, event: events.MouseEvent, factor: float) -> None:
        event.stop()
        self._zoom_around(factor, self._x_at(event))

    def _x_at(self, event: events.MouseEvent) -> float | None:
        offset = event.get_content_offset(self)
        width = self.size.width - self._ranges.gutter
        if offset is None or offset.x < self._ranges.gutter or width < 1:
            return None
        return self.view.x(offset.x - self._ranges.gutter + 0.5)
