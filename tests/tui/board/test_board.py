"""The board in the app: grid and large chart, pages, groups, filter, cursor, axes, memory, files."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from textual import events
from textual.geometry import Region
from textual.pilot import Pilot

from epochtop.engine.protocol.events import encode
from epochtop.engine.runs.paths import EVENTS
from epochtop.tui.board.board import Board
from epochtop.tui.board.grid import Grid
from tests.support.engines import HANGING_S
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, logged_at, script_ended, write_script_run
from tests.support.ui.screens import beating, furnished, still_app, until

NAMES = ("lr", "grad_norm", "perplexity", "bleu", "mnli__f1", "mnli__mcc", "system__gpu0__percent")


def script_run(home: Path, count: int = 8) -> Path:
    """A run with `count` families: the loss with its validation first."""
    names = [*NAMES, *(f"layer{place}__norm" for place in range(count))][: count - 1]
    values = {name: [1.0 + step / 50 for step in range(100)] for name in names}
    validation = [logged_at([49, 99], 2.0, val_loss=[0.75, 0.5])] if count > 1 else []
    events = [
        SCRIPT_STARTED,
        logged(0, 2.0, train_loss=[2 - step / 60 for step in range(100)], **values),
        *validation,
        script_ended(100),
    ]
    return write_script_run(home, "resnet-1a2b", events)


@asynccontextmanager
async def opened(home: Path, run: Path, size: tuple[int, int] = (120, 40)) -> AsyncIterator[tuple[Any, Pilot[Any]]]:
    """An app with the run open and its chart focused."""
    app = still_app(home)
    async with app.run_test(size=size) as pilot:
        await furnished(pilot)
        app.open(run)
        await beating(app, pilot, lambda: app.main.chart.trace.steps == 100)
        app.main.board.focus_view()
        yield app, pilot


def complete(board: Board) -> bool:
    """Whether all charts of the page are drawn with their values."""
    grid = board.grid
    return bool(grid.tiles) and all(tile.trace.curves and tile.drawn[1] for tile in grid.tiles)


def lines(grid: Grid) -> list[str]:
    return [grid.render_line(y).text for y in range(grid.size.height)]


async def test_g_shows_all_series_in_a_grid_and_again_the_large_chart(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        board = app.main.board
        assert not board.shows_grid
        await pilot.press("g")
        await beating(app, pilot, lambda: complete(board))
        assert board.grid.has_focus
        assert board.grid.page.families == ("loss", "lr", "system/gpu0/percent", "grad_norm")
        rows = lines(board.grid)
        assert rows[0].split() == ["▸", "Loss", "⠒", "0.3500", "▪", "0.5000", "lr", "⠒", "2.9800"]
        assert str(board.grid.border_title) == "Charts 1–4 of 8"
        await pilot.press("g")
        assert not board.shows_grid
        assert board.chart.has_focus


@pytest.mark.parametrize(("size", "shape"), [((80, 24), (1, 2)), ((120, 40), (2, 2)), ((200, 60), (4, 3))])
async def test_the_grid_fills_the_region(tmp_path: Path, size: tuple[int, int], shape: tuple[int, int]) -> None:
    async with opened(tmp_path, script_run(tmp_path, 15), size) as (app, pilot):
        await pilot.press("g")
        await beating(app, pilot, lambda: complete(app.main.board))
        grid = app.main.board.grid
        assert grid.page.shape == shape
        assert grid.size.height >= app.main.runs.size.height
        assert lines(grid)[-1].split().count("100") == shape[1]  # the x axis of every column ends at the last step


async def test_twelve_metrics_are_on_one_screen_and_any_is_found_with_a_few_letters(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path, 12)) as (app, pilot):
        board = app.main.board
        await pilot.press("g", "f")
        await beating(app, pilot, lambda: board.grid.page.shape == (4, 3) and complete(board))
        assert len(board.grid.page.families) == 12
        assert board.grid.page.count == 1
        assert not app.main.runs.is_on_screen
        names = " ".join(lines(board.grid))
        assert [family for family in board.grid.page.families if family.rpartition("/")[2] not in names] == ["loss"]
        await pilot.press("slash")
        await until(pilot, lambda: board.query("FilterLine Entry:focus"))
        await pilot.press(*"bl")
        await until(pilot, lambda: board.grid.page.families == ("bleu",))
        await pilot.press("escape")
        await until(pilot, lambda: not board.query("FilterLine"))
        await pilot.press("f")
        await until(pilot, lambda: app.main.runs.is_on_screen)


async def test_arrows_move_over_pages_and_enter_enlarges(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        board = app.main.board
        await pilot.press("g", "right", "down")
        assert board.grid.family == "grad_norm"
        await pilot.press("right")
        assert board.grid.page.number == 1
        assert board.grid.family == "perplexity"
        await pilot.press("left", "up", "left")
        assert board.grid.family == "loss"
        await pilot.press("right", "enter")
        await beating(app, pilot, lambda: board.chart.trace.family == "lr" and len(board.chart.trace.main) == 100)
        assert not board.shows_grid
        await pilot.press("escape")
        assert board.shows_grid
        assert board.grid.family == "lr"


async def test_only_the_values_of_the_page_are_in_memory(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path, 300)) as (app, pilot):
        board = app.main.board
        await pilot.press("g")
        await beating(app, pilot, lambda: complete(board))
        assert set(board.chart.trace.run.series) == {
            "train_loss", "val_loss", "lr", "system/gpu0/percent", "grad_norm",
        }  # fmt: skip
        await pilot.press("n")
        await beating(app, pilot, lambda: complete(board))
        assert set(board.chart.trace.run.series) == {
            "train_loss", "val_loss", "perplexity", "bleu", "mnli/f1", "mnli/mcc",
        }  # fmt: skip


async def test_a_filter_is_typed_with_errors_next_to_it(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        board = app.main.board
        await pilot.press("g", "slash")
        await until(pilot, lambda: board.query("FilterLine Entry:focus"))
        await pilot.press(*"loss !val", "space", "!")
        await until(pilot, lambda: "missing after !" in str(board.query_one("#filter-error").render()))
        assert board.grid.page.families == ("loss",)
        await pilot.press("backspace", "enter")
        await until(pilot, lambda: not board.query("FilterLine"))
        await beating(app, pilot, lambda: complete(board))
        assert [curve.label for tile in board.grid.tiles for curve in tile.trace.curves] == ["train"]
        assert str(board.grid.border_title) == "Charts · loss !val"
        await pilot.press("slash")
        await until(pilot, lambda: board.query("FilterLine Entry:focus"))
        await pilot.press("x", "y", "escape")
        await until(pilot, lambda: not board.query("FilterLine"))
        assert board.grid.filter.text == "loss !val"


async def test_letters_of_the_same_packet_as_the_slash_are_typed_into_the_filter(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        board = app.main.board
        await pilot.press("g")
        for key in ("slash", "f", "1", "enter"):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await until(
            pilot, lambda: board.grid.filter.text == "f1" and board.grid.has_focus and not board.query("FilterLine")
        )
        assert not app.main.has_class("-full")


async def test_groups_follow_the_paths(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        grid = app.main.board.grid
        await pilot.press("g", "G", "G")
        assert grid.page.families == ("mnli/f1", "mnli/mcc")
        assert str(grid.border_title) == "Charts · mnli"
        await pilot.press("G", "G")
        assert grid.group is None


async def test_one_cursor_crosses_all_charts(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        board = app.main.board
        await pilot.press("g")
        await beating(app, pilot, lambda: complete(board))
        await pilot.press("c", "left", "left")
        step = board.chart.cursor
        assert step is not None
        assert 90 < step < 99
        rows = lines(board.grid)
        assert f"step {step}" in str(board.grid.border_title)
        assert f"{1 + step / 50:.4f}" in rows[0]
        left, right = board.grid._boxes[0], board.grid._boxes[1]
        marks = [[x - box.left for x in range(box.left + 8, box.left + box.width) if rows[6][x] == "│"]
                 for box in (left, right)]  # fmt: skip
        assert len(marks[0]) == 1
        assert marks[0] == marks[1]


async def test_the_axes_are_those_of_the_large_chart(tmp_path: Path) -> None:
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        board = app.main.board
        await pilot.press("g", "l", "X", "o", "m")
        assert str(board.grid.border_title) == "Charts 1–4 of 8 · log y · log x · no outliers · smooth 0.6"
        await beating(app, pilot, lambda: complete(board))
        labels = lines(board.grid)[-1].split()
        assert labels[: labels.index("100") + 1][1:] == ["1", "10", "100"]
        await pilot.press("g")
        assert (board.chart.log_scale, board.chart.log_x, board.chart.smoothing) == (True, True, 0.6)


async def test_only_cells_that_change_are_painted(tmp_path: Path) -> None:
    run = script_run(tmp_path)
    with open(run / EVENTS, "rb") as log:
        content = log.read()
    (run / EVENTS).write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])  # without its end
    async with opened(tmp_path, run) as (app, pilot):
        board = app.main.board
        await pilot.press("g")
        await beating(app, pilot, lambda: complete(board))
        app.beat()
        painted: list[Region] = []
        refresh = board.grid.refresh
        board.grid.refresh = lambda *areas, **options: painted.extend(areas) or refresh(*areas, **options)
        assert board.redraw() == 0
        for event in (logged(100, 2.1, lr=[3.5]),):
            with open(run / EVENTS, "ab") as log:
                log.write(encode(event) + b"\n")
        tile = board.grid.tiles[1]
        board.chart.trace.run.series["lr"].version += 1  # as a window does
        tile.trace.run.series["lr"].last = 9.5
        assert board.redraw() == 1
        (region,) = painted
        box = board.grid._boxes[1]
        assert box.left <= region.x
        assert region.right <= box.left + box.width
        assert region.y == box.top


async def test_the_choice_is_remembered_for_the_home_folder(tmp_path: Path) -> None:
    run = script_run(tmp_path)
    async with opened(tmp_path, run) as (app, pilot):
        await pilot.press("g", "l", "n")
        board = app.main.board
        board._memory.wait(HANGING_S)
        saved = json.loads((tmp_path / "board.json").read_text())
        assert (saved["view"], saved["log_y"], saved["page"]) == ("grid", True, 1)
    async with opened(tmp_path, run) as (app, pilot):
        board = app.main.board
        await beating(app, pilot, lambda: complete(board))
        assert board.grid.has_focus
        assert board.grid.page.number == 1
        assert board.chart.log_scale


@pytest.mark.parametrize("content", ["{", '{"view": "circle"}', '{"smoothing": 7}', "[" * 100_000])
async def test_a_damaged_file_is_ignored_and_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "board.json").write_text(content)
    app = still_app(tmp_path)
    async with app.run_test() as pilot:
        await furnished(pilot)
        assert not app.main.board.shows_grid
        assert any("board.json" in note.message for note in app._notifications)


async def test_the_files_have_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    async with opened(tmp_path, script_run(tmp_path)) as (app, pilot):
        await pilot.press("g")
        await beating(app, pilot, lambda: complete(app.main.board))
        await pilot.press("e")
        await until(pilot, lambda: len([*folder.iterdir()]) == 2)
    (table,), (drawing,) = folder.glob("*.csv"), folder.glob("*.svg")
    rows = [*csv.DictReader(table.read_text().splitlines())]
    assert {row["series"] for row in rows} == {
        "Loss train", "Loss validation", "lr lr", "system/gpu0/percent percent", "grad_norm grad_norm",
    }  # fmt: skip
    assert [float(row["last"]) for row in rows if row["series"] == "Loss validation"] == [0.75, 0.5]
    tree = ElementTree.parse(drawing).getroot()
    assert len([part for part in tree if part.tag.endswith("svg")]) == 4
