"""The first frame: the regions of the main screen, empty, drawn by one widget before anything else is imported.

Keys that are typed before the regions are there wait for them. Imports Textual and the modules that draw rows; must never
import the protocol, a run or another widget.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from itertools import groupby

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.cells.canvas import Canvas, Row
from epochtop.tui.cells.plain import PlainApp
from epochtop.tui.cells.rows import cleaned, cut
from epochtop.tui.screens.layout import SMALLEST, regions, size_classes

PAGES = {"form": "1 Train", "runs": "2 Runs", "machine": "3 Machine", "log": "5 Log"}
TABS = {"form": PAGES["form"], "runs": PAGES["runs"], "machine": PAGES["machine"], "lab": "4 Lab", "log": PAGES["log"]}
"""Regions and the Lab page."""
SELECTED = "runs"
"""The region that a compact screen shows at first."""
TITLES = {"chart": "Loss", "runs": "Runs", "log": "Log", "machine": "Machine", "form": "Run"}
TOO_SMALL = f"epochtop needs {SMALLEST[0]} × {SMALLEST[1]} characters"

PLAIN, PROGRAM, TITLE, HOST, STATUS, TAB, SELECTED_TAB, BORDER, FOCUSED, HEADING, QUIET, NOTICE, FOOTER = range(13)
"""Roles of cells."""
STYLES = {
    TITLE: "background: $panel; color: $text;",
    STATUS: "background: $surface; color: $text;",
    TAB: "background: $panel; color: $text-muted;",
    BORDER: "color: $foreground-disabled;",
    FOCUSED: "color: $border;",
    HEADING: "color: $text;",
    QUIET: "color: $text-muted;",
    NOTICE: "color: $text-warning;",
    FOOTER: "background: $footer-background;",
}
VARIANTS = {
    PROGRAM: (TITLE, Style(bold=True)),
    HOST: (TITLE, Style(dim=True)),
    SELECTED_TAB: (TITLE, Style(bold=True, reverse=True)),
}
"""Roles that look like another one but for this."""
RULES = " ".join(f"& > .opening--{role} {{ {style} }}" for role, style in STYLES.items())


class OpeningFrame(Widget):
    """Title, borders of the regions, and status line. `text` is in the middle of the chart."""

    COMPONENT_CLASSES = {f"opening--{role}" for role in STYLES}
    DEFAULT_CSS = f"OpeningFrame {{ width: 1fr; height: 1fr; {RULES} }}"

    def __init__(self, title: str, host: str, status: Callable[[], str], text: str) -> None:
        super().__init__()
        self._title, self._host, self._status, self._text = title, host, status, text
        self._strips: tuple[Size, list[Strip]] = (Size(), [])

    def render_line(self, y: int) -> Strip:
        """A row of the screen."""
        if self._strips[0] != self.size:
            self._strips = (self.size, self._draw(self.size))
        return self._strips[1][y]

    def notify_style_update(self) -> None:
        """Draw again in another theme."""
        super().notify_style_update()
        self._strips = (Size(), [])

    def _draw(self, size: Size) -> list[Strip]:
        canvas = Canvas(*size)
        boxes = regions(size)
        if boxes:
            self._put_lines(canvas)
            for name, box in boxes.items():
                put_box(canvas, box, TITLES[name], FOCUSED if name == "chart" else BORDER)
            put_centered(canvas, boxes["chart"], cleaned(plain_line(self._text)), QUIET)
        else:
            put_centered(canvas, size.region, TOO_SMALL, NOTICE)
        styles = {role: self.get_component_rich_style(f"opening--{role}") for role in STYLES}
        styles |= {role: styles[base] + style for role, (base, style) in VARIANTS.items()}
        return [_strip(row, styles | {PLAIN: self.rich_style}) for row in canvas.rows()]

    def _put_lines(self, canvas: Canvas) -> None:
        """The lines above and below the regions."""
        width, last = canvas.width, canvas.height - 1
        host = cut(cleaned(plain_line(self._host)), width // 2) + " "
        canvas.put(0, 0, " " * width, TITLE)
        canvas.put(0, 0, " epochtop", PROGRAM)
        if self._title:
            canvas.put(9, 0, cut(cleaned(plain_line(f" · {self._title}")), width - len(host) - 10), TITLE)
        canvas.put(width - len(host), 0, host, HOST)
        if size_classes(Size(width, canvas.height))["-compact"]:
            self._put_tabs(canvas)
        canvas.put(0, last - 1, f" {self._status()}".ljust(width), STATUS)
        canvas.put(0, last, " " * width, FOOTER)

    def _put_tabs(self, canvas: Canvas) -> None:
        column = 0
        canvas.put(0, 1, " " * canvas.width, TAB)
        for page, name in TABS.items():
            canvas.put(column + 2, 1, name, SELECTED_TAB if page == SELECTED else TAB)
            column += len(name) + 4


def _strip(row: Row, styles: Mapping[int, Style]) -> Strip:
    """A row as few segments: blanks without a color of their own join what is before them."""
    role, roles = PLAIN, []
    for each in row.roles:
        role = each or role
        roles.append(role)
    segments = [
        Segment("".join(char for _, char in run), styles[role])
        for role, run in groupby(zip(roles, row.text, strict=True), lambda cell: cell[0])
    ]
    return Strip(segments, len(row.text))


def put_box(canvas: Canvas, box: Region, title: str, role: int) -> None:
    """A round border with a title, as Textual draws it."""
    line, right, bottom = "─" * (box.width - 2), box.right - 1, box.bottom - 1
    canvas.put(box.x, box.y, f"╭{line}╮", role)
    canvas.put(box.x + 2, box.y, f" {title} ", HEADING)
    for row in range(box.y + 1, bottom):
        canvas.put(box.x, row, "│", role)
        canvas.put(right, row, "│", role)
    canvas.put(box.x, bottom, f"╰{line}╯", role)


def put_centered(canvas: Canvas, box: Region, text: str, role: int) -> None:
    """One line in the middle of a region."""
    text = cut(text, box.width - 2)
    canvas.put(box.x + (box.width - len(text)) // 2, box.y + (box.height - 1) // 2, text, role)


class OpeningApp(PlainApp):
    """Abstract: an app whose regions are built after its first frame. What is typed before waits for them."""

    class Drawn(Message):
        """The first frame is out."""

    class Furnished(Message):
        """All regions are there."""

    def __init__(self) -> None:
        super().__init__()
        self.furnished = False
        """Whether all regions are there."""
        self.when_furnished: Callable[[], object] = lambda: None
        """Called when they are."""
        self._early_input: list[events.Event] = []
        """What was typed and clicked before that."""

    @abstractmethod
    async def furnish(self) -> None:
        """Build all regions."""

    @abstractmethod
    def begin(self) -> None:
        """Do what the app was opened for; all regions are there."""

    def on_opening_app_drawn(self) -> None:
        """Build the regions in a worker, so that the app is never deaf."""
        self.run_worker(self._furnish(), group="furnish")

    async def _furnish(self) -> None:
        await self.furnish()
        self.post_message(self.Furnished())

    async def on_opening_app_furnished(self) -> None:
        """Begin, then take what was typed meanwhile."""
        self.furnished = True
        self.refresh_bindings()
        self.begin()
        for event in self._early_input:  # what came later is behind this message
            await self.on_event(event)
        self._early_input.clear()
        self.when_furnished()

    async def on_event(self, event: events.Event) -> None:
        """Keep what is typed or clicked until there is something that can take it."""
        if self.furnished or not isinstance(event, events.InputEvent | events.Paste):
            await super().on_event(event)
        elif not isinstance(event, events.MouseMove):
            self._early_input.append(event)
