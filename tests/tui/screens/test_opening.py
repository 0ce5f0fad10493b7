"""The first frame: the same regions as the screen that follows, and keys that wait for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.style import Style
from textual.geometry import Region

from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.screens.main import Placeholder
from epochtop.tui.screens.opening import TITLES
from tests.support.runs import events_of, write_run
from tests.support.ui.screens import NOW, still_app, until

REGIONS = {(50, 12): 0, (80, 24): 2, (101, 29): 4, (120, 40): 4, (200, 60): 5}
"""Bordered regions of a terminal of a size."""


class Cell(NamedTuple):
    """A character of the screen, and how it looks."""

    char: str
    look: tuple[object, ...]


def cells_of(app: EpochtopApp) -> list[list[Cell]]:
    """The screen, cell by cell."""
    return [
        [Cell(char, _look(char, segment.style or Style())) for segment in strip for char in segment.text]
        for strip in app.screen._compositor.render_strips(app.size)
    ]


def _look(char: str, style: Style) -> tuple[object, ...]:
    if char == " " and not style.reverse:
        return (style.bgcolor,)
    return style.bgcolor, style.color, bool(style.bold), bool(style.dim), bool(style.reverse)


def boxes(screen: list[list[Cell]]) -> dict[str, Region]:
    """The bordered regions by title, found by their corners."""
    rows, regions = ["".join(cell.char for cell in row) for row in screen], {}
    for y, row in enumerate(rows):
        for x in (x for x, char in enumerate(row) if char == "╭"):
            right = row.index("╮", x)
            bottom = next(below for below in range(y, len(rows)) if rows[below][x] == "╰")
            regions[row[x : right + 1].strip("╭─╮ ")] = Region.from_corners(x, y, right + 1, bottom + 1)
    return regions


async def first_and_settled(app: EpochtopApp, size: tuple[int, int], key: str) -> list[list[list[Cell]]]:
    """The screen before anything is built, and after; `key` is pressed in between."""
    shown, furnish = asyncio.Event(), app.furnish

    async def wait() -> None:
        await shown.wait()
        await furnish()

    app.furnish = wait  # type: ignore[method-assign]
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.main._frame.size == size)
        first = cells_of(app)
        await pilot.press(key)
        shown.set()
        await until(pilot, lambda: app.furnished)
        await until(pilot, lambda: app.main.runs.has_focus)  # key 2
        await pilot.press("0")
        await until(pilot, lambda: app.main.chart.has_focus)
        await pilot.pause()
        return [first, cells_of(app)]


@pytest.mark.parametrize("name", TITLES)
def test_a_region_that_is_built_later_is_empty(name: str) -> None:
    assert Placeholder(name).render() == ""


@pytest.mark.parametrize("size", REGIONS)
async def test_the_first_frame_has_the_regions_of_the_settled_screen_and_keys_wait_for_them(
    home: Path, size: tuple[int, int]
) -> None:
    app = still_app(home)
    app.engine.torch = ""  # nothing is known about it at first
    first, settled = await first_and_settled(app, size, "2")
    assert boxes(first) == boxes(settled)
    assert len(boxes(first)) == REGIONS[size]
    assert boxes(first).keys() <= {*TITLES.values()}
    lines = range(len(first)) if size == (50, 12) else [0, len(first) - 2, *([1] if size == (80, 24) else [])]
    for row in lines:
        assert first[row] == settled[row]
    for box in boxes(first).values():
        for row in (box.y, box.bottom - 1):
            assert first[row][box.x : box.right] == settled[row][box.x : box.right]


async def test_the_first_frame_names_the_run_that_is_opened(home: Path) -> None:
    run = write_run(home, "iris-7f3a", events_of("finished"))
    app = EpochtopApp(home, attach=run, live=False, now=lambda: NOW, host="box")
    first, _ = await first_and_settled(app, (120, 40), "2")
    rows = ["".join(cell.char for cell in row) for row in first]
    assert rows[0].split() == ["epochtop", "·", "iris-7f3a", "box"]
    assert any("opening iris-7f3a …" in row for row in rows)
