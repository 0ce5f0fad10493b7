"""Foreign text in a widget: no markup, no control characters. The only place that gives Textual a text as it is.

Textual parses most strings as markup: `[/INST]` in an error would end the app, and `[rank0]` would be missing. Every
title, tooltip, table cell and line of text goes through this module; tests/architecture/test_plain_text.py checks it.
Rows of cells need nothing: :func:`epochtop.tui.cells.rows.row` cleans them.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment, Segments
from rich.text import Text
from textual.app import App
from textual.color import Color
from textual.content import Content
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from epochtop.engine.terminal.plain import is_plain, masked, plain_line, plain_text


def plain(text: str) -> Text:
    """One line for a cell, a caption, an option or a button."""
    return Text(plain_line(text))


def plain_block(text: str) -> Text:
    """Text of several lines."""
    return Text(plain_text(text))


def set_title(widget: Widget, title: str) -> None:
    """Set the title in the upper border, if it differs."""
    text = plain(title)
    if _title_markup(text) != widget.border_title:
        widget.border_title = text


def set_subtitle(widget: Widget, subtitle: str) -> None:
    """Set the title in the lower border, if it differs; an empty one removes it."""
    text = plain(subtitle)
    if _title_markup(text) != (widget.border_subtitle or ""):
        widget.border_subtitle = text if subtitle else None


def _title_markup(text: Text) -> str:
    """What a border title returns after it was set to `text`."""
    return Content.from_rich_text(text).markup


def set_tooltip(widget: Widget, tooltip: str) -> None:
    """Set the tooltip, if it differs; an empty one removes it."""
    text = plain_block(tooltip) if tooltip else None
    if text != widget.tooltip:
        widget.tooltip = text


class PlainText(Static):
    """Text that is never parsed. Textual styles of a `Text` stay."""

    def __init__(self, text: str | Text = "", *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(_cleaned(text), id=id, classes=classes, markup=False)

    def show(self, text: str | Text, *, layout: bool = True) -> None:
        """Show another text. `layout` false promises that it needs the same space."""
        self.update(_cleaned(text), layout=layout)


def _cleaned(text: str | Text) -> str | Text:
    if isinstance(text, str):
        return plain_text(text)
    if not is_plain(text.plain):
        text = text.copy()
        text.plain = masked(text.plain)
    return text


class PlainFilter(LineFilter):
    """The last guard: masks what a widget of Textual draws by itself, such as the value of an entry.

    The width of a line is decided before, so a character without width is removed instead.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments of a line, without unsafe characters."""
        if all(segment.control or is_plain(segment.text) for segment in segments):
            return segments
        return [segment if segment.control else _masked_segment(segment) for segment in segments]


class PlainApp(App[int]):
    """An app whose notifications and lines are plain."""

    def update_styles(self, node: DOMNode, animate: bool = True) -> None:
        """Apply the style sheet, except to a widget without a parent: Textual applies it again when the widget gets one."""
        if node.parent is not None or not isinstance(node, Widget) or isinstance(node, Screen):
            super().update_styles(node, animate)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a notification; `markup` has no effect."""
        super().notify(plain_text(message), title=plain_line(title), severity=severity, timeout=timeout, markup=False)

    def _print_error_renderables(self) -> None:
        """Print the traceback of an error that ended the app: its message may quote foreign text."""
        self._exit_renderables = [
            Segments([_plain_segment(segment) for segment in self.console.render(renderable)])
            for renderable in self._exit_renderables
        ]
        super()._print_error_renderables()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters and the guard."""
        return (*super().get_line_filters(), _GUARD)


def _plain_segment(segment: Segment) -> Segment:
    return segment if segment.control else Segment(plain_text(segment.text), segment.style)


def _masked_segment(segment: Segment) -> Segment:
    text = "".join(char if is_plain(char) else "?" * cell_len(char) for char in segment.text)
    return Segment(text, segment.style)


_GUARD = PlainFilter()
