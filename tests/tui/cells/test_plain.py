"""Foreign text in every kind of widget is shown as it is: no markup, no escape sequence, no word missing."""

from __future__ import annotations

import pytest
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Button, DataTable, Input, Label, RichLog, Select, Static

from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.plain import PlainApp, PlainText, plain, plain_block, set_subtitle, set_title, set_tooltip
from epochtop.tui.cells.rows import row
from epochtop.tui.cells.view import Words
from epochtop.tui.chart.loss_chart import LossChart
from epochtop.tui.forms.dialogs import Entries, Question
from epochtop.tui.screens.status import StatusLine
from tests.support.ui.hostile import EVERYTHING, HOSTILE, MARKUP, unsafe_characters
from tests.support.ui.screens import until

SIZE = (200, 60)
hostile = pytest.mark.parametrize("text", HOSTILE)
markup = pytest.mark.parametrize("text", MARKUP)


class Gallery(PlainApp):
    """Every kind of widget with one text."""

    TOOLTIP_DELAY = 0.01

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        text = self.text
        yield PlainText(text, id="static")
        yield PlainText(Text.assemble(("styled ", "bold"), text), id="styled")
        yield Label(plain(text), id="label")
        yield Button(plain(text), id="button")
        yield Select([(plain(text), 1)], value=1, id="select")
        yield DataTable[Text](id="table")
        yield RichLog(id="log", min_width=20)
        yield Input(text, id="input")
        yield StatusLine("line")
        yield Words(lambda width: [row((text, 1))], id="words")
        yield LossChart(id="chart")
        yield Vertical(id="box")

    def on_mount(self) -> None:
        text = self.text
        for widget in self.query("Select, Input, DataTable, RichLog, LossChart, #box"):
            widget.styles.height = 5 if widget.id in ("log", "chart") else 3
        table = self.query_one(DataTable)
        table.add_column("", key="name")
        table.add_row(plain("before"), key="row")
        table.update_cell("row", "name", plain(text), update_width=True)
        self.query_one("#log", RichLog).write(plain_block(text))
        self.query_one("#line", StatusLine).put(text)
        box = self.query_one("#box")
        box.styles.border = ("round", "white")
        set_title(box, text)
        set_subtitle(box, text)
        set_tooltip(box, text)


def screen_text(app: PlainApp) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def drawn(app: PlainApp, name: str) -> str:
    """The characters of a widget and its border on the screen."""
    region = app.screen.query_one(f"#{name}").region
    lines = screen_text(app).splitlines()[region.y : region.bottom]
    return "\n".join(line[region.x : region.right] for line in lines)


WIDGETS = ("static", "styled", "label", "button", "select", "table", "log", "line", "words", "box", "input")


@markup
async def test_no_widget_parses_a_text(text: str) -> None:
    app = Gallery(text)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert {name for name in WIDGETS if text.strip() not in drawn(app, name)} == set()
        assert drawn(app, "box").count(text.strip()) == 2  # both borders
        app.query_one(LossChart).set_footer(text)
        await pilot.pause()
        assert text.strip() in drawn(app, "chart")


@hostile
async def test_no_widget_lets_an_unsafe_character_through(text: str) -> None:
    app = Gallery(text)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        app.query_one(LossChart).set_footer(text)
        await pilot.pause()
        lines = screen_text(app).splitlines()
        assert unsafe_characters("\n".join(lines)) == set()
        assert {len(line) for line in lines} == {SIZE[0]}  # every character takes one cell


@hostile
async def test_a_notification_is_plain(text: str) -> None:
    app = Gallery("")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        app.notify(text, title=text, markup=True)
        app.query_one("#static").notify(text, severity="error")
        await pilot.pause()
        toasts = [str(toast.render()) for toast in app.screen.query("Toast")]
        assert len(toasts) == 2
        assert unsafe_characters("".join(toasts)) == unsafe_characters(screen_text(app)) == set()
        if text in MARKUP:
            assert toasts[0] == f"{text}\n{text}"
            assert toasts[1] == text


@hostile
async def test_a_tooltip_is_plain(text: str) -> None:
    app = Gallery(text)
    async with app.run_test(size=SIZE, tooltips=True) as pilot:
        (tooltip,) = app.screen.query("Tooltip")
        await pilot.hover("#box")
        await until(pilot, lambda: tooltip.display)
        await pilot.pause()
        content = str(tooltip.visual)  # type: ignore[attr-defined]
        assert unsafe_characters(content) == unsafe_characters(screen_text(app)) == set()
        if text in MARKUP:
            assert content == text


@hostile
async def test_dialogs_are_plain(text: str) -> None:
    app = Gallery("")
    async with app.run_test(size=SIZE) as pilot:
        for dialog in (Question(text, (("cancel", text),)), Entries(text, {"name": text})):
            app.push_screen(dialog)
            await pilot.pause()
            shown = screen_text(app)
            assert unsafe_characters(shown) == set()
            if text in MARKUP:
                assert shown.count(text.strip()) >= 2
            app.pop_screen()


async def test_an_entry_keeps_its_value() -> None:
    """A setting that is copied from a run stays what it is; only the picture of it is masked."""
    app = Gallery(EVERYTHING)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert app.query_one(Input).value == EVERYTHING
        assert unsafe_characters(drawn(app, "input")) == set()


async def test_a_title_is_set_only_if_it_differs() -> None:
    """Setting a border title repaints the widget."""
    app = Gallery("")
    async with app.run_test(size=SIZE):
        box = app.query_one("#box")
        for text in HOSTILE:
            set_title(box, text)
            set_subtitle(box, text)
            title, subtitle = box._border_title, box._border_subtitle
            set_title(box, text)
            set_subtitle(box, text)
            assert box._border_title is title
            assert box._border_subtitle is subtitle
        set_subtitle(box, "")
        assert not box.border_subtitle
        set_tooltip(box, "")
        assert box.tooltip is None


def test_a_static_text_of_textual_would_parse_it() -> None:
    """Otherwise these tests would prove nothing."""
    assert str(Static("[rank0]: boom").visual) != "[rank0]: boom"


def test_rows_of_cells_are_clean() -> None:
    actual: Row = row((EVERYTHING, 1))
    assert unsafe_characters(actual.text) == set()
    assert all(text in actual.text for text in MARKUP)
