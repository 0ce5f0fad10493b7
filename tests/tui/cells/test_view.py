"""The widget that paints rows: it repaints changed cells only, scrolls, and follows the theme."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import BAD, TEXT, row
from epochtop.tui.cells.view import Page, Words


class Host(App[None]):
    """A page of numbered rows, of which a test changes some."""

    def __init__(self, count: int = 30) -> None:
        super().__init__()
        self.lines = [f"row {number}" for number in range(count)]
        self.page = Page(lambda width, height: [row((line, TEXT)) for line in self.lines])

    def compose(self) -> ComposeResult:
        yield self.page


def text(page: Page) -> list[str]:
    return [page.render_line(y).text.rstrip() for y in range(page.size.height)]


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> list[Region]:
    """The regions that pages ask to repaint."""
    repainted: list[Region] = []
    refresh = Page.refresh

    def note(page: Page, *areas: Region, **options: bool) -> Page:
        repainted.extend(areas or [page.size.region])
        return refresh(page, *areas, **options)

    monkeypatch.setattr(Page, "refresh", note)
    return repainted


async def test_a_page_repaints_the_changed_cells_of_visible_rows(regions: list[Region]) -> None:
    app = Host()
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.pause()
        app.page.scroll_to(y=5, animate=False)
        await pilot.pause()
        assert text(app.page)[0] == "row 5"
        regions.clear()
        app.page.draw()
        assert regions == []
        app.lines[7], app.lines[1] = "row X", "gone"
        app.page.draw()
        assert regions == [Region(4, 2, 1, 1)]
        assert text(app.page)[:3] == ["row 5", "row 6", "row X"]


async def test_a_row_that_changed_out_of_sight_is_there_after_scrolling() -> None:
    app = Host()
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.pause()
        app.lines[25] = "changed"
        app.page.draw()
        app.page.scroll_end(animate=False)
        await pilot.pause()
        assert "changed" in text(app.page)


async def test_another_number_of_rows_repaints_the_page(regions: list[Region]) -> None:
    app = Host()
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.pause()
        regions.clear()
        app.lines.append("one more")
        app.page.draw()
        assert app.page.size.region in regions
        assert app.page.virtual_size.height == 31


async def test_a_new_theme_changes_colors_and_no_characters() -> None:
    app = Host()
    async with app.run_test(size=(40, 10)) as pilot:
        before, colors = text(app.page), {segment.style for segment in app.page.render_line(3)}
        app.theme = "textual-light"
        await pilot.pause()
        assert text(app.page) == before
        assert {segment.style for segment in app.page.render_line(3)} != colors


async def test_words_are_as_high_as_their_rows_and_change_with_them() -> None:
    def two(width: int) -> list[Row]:
        return [row(("first", TEXT)), row((f"{width} cells", BAD))]

    class Texts(App[None]):
        def compose(self) -> ComposeResult:
            yield Words(two)

    app = Texts()
    async with app.run_test(size=(40, 10)) as pilot:
        words = app.query_one(Words)
        assert words.size.height == 2
        assert words.render_line(1).text.rstrip() == f"{words.size.width} cells"
        words.show(lambda width: [row(("only", TEXT))])
        await pilot.pause()
        assert words.size.height == 1
        assert words.render_line(0).text.rstrip() == "only"
