"""Where the steps of a script spend their time: the parts, the lines that read the device, the operators, and what to gain."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import ModalScreen

from epochtop.engine.protocol.events import Analyzed, DeviceRead
from epochtop.engine.protocol.quantities import plural
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.key_footer import KeyFooter
from epochtop.tui.cells.plain import set_title
from epochtop.tui.cells.rows import EMPTY, FIRST, QUIET, STRONG, TEXT, cut, row, shortened, wrapped
from epochtop.tui.cells.view import Page

PARTS = {
    "data_wait": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "rest": "rest of the loop",
}
"""Names of the parts of a step."""
BAR = 24
"""Widest bar, in cells."""
LINES = 12
"""Most lines and operators that are shown."""
WORTHWHILE = 1.05
"""Least speedup that is mentioned."""


def analysis_rows(result: Analyzed, width: int) -> list[Row]:
    """The whole result, in rows of at most `width` cells."""
    return [
        row((f"A step takes {result.step_ms:.3g} ms", STRONG), (f", mean of {plural(result.steps, 'step')}", TEXT)),
        *_part_rows(result),
        EMPTY,
        *_gain_rows(result, width),
        EMPTY,
        *_read_rows(result, width),
        EMPTY,
        *_operator_rows(result, width),
        *[line for note in result.notes for line in wrapped(note, width, QUIET)],
    ]


def _part_rows(result: Analyzed) -> list[Row]:
    names = [*PARTS, *sorted(result.parts_ms.keys() - PARTS.keys())]
    rows = []
    for name in names:
        part_ms = result.parts_ms.get(name)
        if part_ms is None:
            continue
        share = part_ms / result.step_ms if result.step_ms else 0.0
        bar = "█" * round(share * BAR)
        rows.append(
            row((PARTS.get(name, name).ljust(18), TEXT), (f"{part_ms:8.3f} ms {share:5.0%}  ", TEXT), (bar, FIRST))
        )
    return rows


# --- what to gain ----------------------------------------------------------------------------------------------


def gains(result: Analyzed) -> list[str]:
    """Upper bounds of what removing a cost can gain, the largest first; what limits the step if there is none."""
    candidates = [(result.parts_ms.get("data_wait", 0.0), "if data were always ready")]
    candidates += [
        (read.blocked_ms / result.steps, f"without {read.call} in {Path(read.file).name}:{read.line}")
        for read in result.reads
        if waits(read)
    ]
    bounds = sorted(((speedup(result, saved_ms), text) for saved_ms, text in candidates), reverse=True)
    lines = [f"at most {bound:.2f} × faster {text}" for bound, text in bounds if bound >= WORTHWHILE]
    return lines or [_limit(result)]


def waits(read: DeviceRead) -> bool:
    """Whether a read waits for a device."""
    return not read.device.startswith(("cpu", "meta"))


def speedup(result: Analyzed, saved_ms: float) -> float:
    """How many times faster a step is without `saved_ms`; the device needs its time in any case."""
    busy_ms = 0.0
    if result.device_idle_percent is not None:
        busy_ms = result.step_ms * (1 - result.device_idle_percent / 100)
    shortest_ms = max(result.step_ms - saved_ms, busy_ms, result.step_ms / 1000)
    return result.step_ms / shortest_ms


def _limit(result: Analyzed) -> str:
    idle = result.device_idle_percent
    if idle is not None and idle < 20:
        return "The device limits the step: it is busy almost all the time."
    largest = max(result.parts_ms, key=lambda name: result.parts_ms[name], default="rest")
    return f"No wait stands out. The largest part is {PARTS.get(largest, largest)}."


def _gain_rows(result: Analyzed, width: int) -> list[Row]:
    idle = result.device_idle_percent
    lines = gains(result)[:LINES]
    if idle is not None:
        lines.append(f"The device is idle {idle:.0f} % of the time.")
    return [row(("What limits it", STRONG)), *[each for line in lines for each in wrapped(line, width, TEXT, "  ")]]


# --- lines and operators ---------------------------------------------------------------------------------------


def _read_rows(result: Analyzed, width: int) -> list[Row]:
    if not result.reads:
        return [row(("No line reads a tensor.", TEXT))]
    rows = [row(("Lines that read a tensor", STRONG), ("  ms per step, reads per step", QUIET))]
    for read in result.reads[:LINES]:
        place = shortened(f"{read.file}:{read.line}", max(20, width - 36))
        figures = f"{read.blocked_ms / result.steps:9.3f} {read.count / result.steps:6.3g}  "
        rows.append(row((figures, TEXT), (f"{place}  ", FIRST), (f"{read.call} on {read.device}", TEXT)))
        if read.through:
            rows.append(row((cut(f"{'':18}through {shortened(read.through, max(20, width - 30))}", width), QUIET)))
    if len(result.reads) > LINES:
        rows.append(row((f"  … {len(result.reads) - LINES} more", QUIET)))
    return rows


def _operator_rows(result: Analyzed, width: int) -> list[Row]:
    if not result.profiled_steps:
        return []
    rows = [row(("Operators", STRONG), ("  CPU ms, device ms and calls per step, with the profiler's own cost", QUIET))]
    for each in result.operators[:LINES]:
        steps = result.profiled_steps
        figures = f"{each.cpu_ms / steps:9.3f} {each.device_ms / steps:9.3f} {each.calls / steps:6.3g}  "
        rows.append(row((figures, TEXT), (cut(each.name, max(10, width - 28)), TEXT)))
    return rows


class AnalysisScreen(ModalScreen[None]):
    """The newest analysis of the open run; `show` replaces it."""

    class AgainRequested(Message):
        """The user wants to measure again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "back", id="analysis.back", tooltip="Close the analysis"),
        Binding("a", "again", "measure again", id="analysis.again", tooltip="Measure the next steps of the script"),
        Binding("ctrl+q", "app.quit", "quit", id="analysis.quit"),
    ]

    def __init__(self, result: Analyzed) -> None:
        super().__init__()
        self._result = result

    def compose(self) -> ComposeResult:
        """The rows and the keys."""
        page = Page(lambda width, height: analysis_rows(self._result, width), id="analysis")
        page.border_subtitle = "arrows and page keys scroll"
        yield page
        yield KeyFooter()

    def on_mount(self) -> None:
        """Focus the page, so that keys scroll it."""
        self.query_one(Page).focus()
        self._write_title()

    def show(self, result: Analyzed) -> None:
        """Show a newer result."""
        if result is not self._result:
            self._result = result
            self.query_one(Page).draw()
            self._write_title()

    def action_again(self) -> None:
        """Measure again."""
        self.post_message(self.AgainRequested())

    def _write_title(self) -> None:
        last = self._result.first_step + self._result.steps - 1
        set_title(self.query_one(Page), f"Steps {self._result.first_step:,} to {last:,}")
