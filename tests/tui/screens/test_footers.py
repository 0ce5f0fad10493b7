"""A walk over all screens, in narrow and in wide terminals: no key, title or hint is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.screen import Screen

from epochtop.engine.protocol.events import Mapped
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.cells.key_footer import Key, KeyFooter, fitting, keys_of
from epochtop.tui.screens.analysis import AnalysisScreen
from epochtop.tui.screens.boundary import BoundaryScreen
from tests.support.runs import events_of, write_run
from tests.support.ui.screens import furnished, show_run, still_app, until
from tests.tui.app.test_script_runs import ANALYZED
from tests.tui.runs_table.test_page import write_runs

WALK: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("0",), "MainScreen", "LossChart"),
    (("slash",), "Picker", "Entry"),
    (("escape",), "MainScreen", "LossChart"),
    (("v",), "ConfusionScreen", "ConfusionMatrix"),
    (("escape",), "MainScreen", "LossChart"),
    (("1",), "MainScreen", "Entry"),
    (("escape", "2"), "MainScreen", "RunList"),
    (("n",), "Entries", "Entry"),
    (("escape",), "MainScreen", "RunList"),
    (("d",), "Question", "Button"),
    (("escape",), "MainScreen", "RunList"),
    (("3",), "MainScreen", "MachinePanel"),
    (("3",), "MainScreen", "MachineSheet"),
    (("escape", "5"), "MainScreen", "RichLog"),
    (("0", "g"), "MainScreen", "Grid"),
    (("f",), "MainScreen", "Grid"),
    (("slash",), "MainScreen", "Entry"),
    (("escape",), "MainScreen", "Grid"),
    (("R",), "Entries", "Entry"),
    (("escape",), "MainScreen", "Grid"),
    (("O",), "Entries", "Entry"),
    (("escape",), "MainScreen", "Grid"),
    (("t",), "RunsTablePage", "FilteredTable"),
    (("slash", "n"), "RunsTablePage", "FilterEntry"),
    (("enter",), "RunsTablePage", "FilteredTable"),
    (("c",), "ColumnChoice", "Entry"),
    (("escape",), "RunsTablePage", "FilteredTable"),
    (("e",), "Entries", "Entry"),
    (("escape",), "RunsTablePage", "FilteredTable"),
    (("A", "v"), "ComparisonScreen", "Page"),
    (("escape",), "RunsTablePage", "FilteredTable"),
    (("escape",), "MainScreen", "Grid"),
    (("4",), "LabScreen", "ExperimentList"),
    (("g",), "GuideScreen", "Page"),
    (("escape",), "LabScreen", "ExperimentList"),
    (("escape",), "MainScreen", "Grid"),
    (("question_mark",), "MainScreen", "Grid"),
)
"""Keys, and the screen and the focused widget that they lead to."""
MAPPED = Mapped(
    step=5,
    columns=2,
    rows=4,
    low=(0.0, 0.0),
    high=(1.0, 1.0),
    cells=bytes([0, 1] * 4),
    classes=("a", "b"),
    points=((0.0, 1.0, 0),),
)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_no_key_title_or_hint_is_cut_on_any_screen(home: Path, size: tuple[int, int]) -> None:
    run = write_run(home, "iris-mlp-7f3a", events_of("finished"))
    write_runs(home)
    app = still_app(home)
    async with app.run_test(size=size) as pilot:
        await furnished(pilot)
        await show_run(pilot, run, 20_000)
        for keys, screen, focused in WALK:
            await pilot.press(*keys)
            await until(pilot, lambda place=(screen, focused): where(app) == place)  # type: ignore[misc]
            if screen == "RunsTablePage":
                app.screen.show_runs(app.screen._source.read())  # type: ignore[attr-defined]
            await looks_whole(pilot, f"{screen}, {focused}")
        for over in (AnalysisScreen(ANALYZED), BoundaryScreen(MAPPED)):
            app.push_screen(over)
            await until(pilot, lambda over=over: app.screen is over)  # type: ignore[misc]
            await looks_whole(pilot, type(over).__name__)
            app.pop_screen()


def where(app: EpochtopApp) -> tuple[str, str]:
    """Names of the screen and of the focused widget."""
    return type(app.screen).__name__, type(app.focused).__name__


async def looks_whole(pilot: Pilot[Any], name: str) -> None:
    """The footer and the borders of the screen, once it is laid out."""
    app = pilot.app
    await pilot.pause()

    footers = app.screen.query(KeyFooter)
    await until(
        pilot, lambda: all(footer.keys == fitting(keys_of(app.screen), footer.size.width) for footer in footers)
    )
    for footer in footers:
        row = footer.render_line(0).text
        assert row.split() == " ".join(f"{key.display} {key.name}" for key in footer.keys).split(), name
        assert len(row) == footer.size.width
    assert cut_borders(app.screen) == [], f"{name}: titles are cut"


def cut_borders(screen: Screen[Any]) -> list[tuple[str, str]]:
    """Widgets whose title or hint does not fit into its border."""
    return [
        (repr(widget), text)
        for widget in screen.query("*")
        if widget.is_on_screen and widget.region.width
        for text in (str(widget.border_title or ""), str(widget.border_subtitle or ""))
        if text and cell_len(text) > widget.region.width - 4
    ]


def test_keys_that_do_not_fit_are_left_out_and_help_stays() -> None:
    keys = [Key(key, key, name, name, True, "") for key, name in (("a", "anatomy"), ("b", "boundary"), ("?", "help"))]
    assert [key.name for key in fitting(keys, 16)] == ["anatomy", "help"]
    assert [key.name for key in fitting(keys, 27)] == ["anatomy", "boundary", "help"]
    assert [key.name for key in fitting(keys, 26)] == ["anatomy", "help"]
    assert [key.name for key in fitting(keys, 5)] == []


async def test_the_footer_follows_the_width_of_the_terminal(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        await until(pilot, lambda: "grid" in shown(app))
        assert {"help", "quit", "table", "smooth"} <= set(shown(app))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "grid" not in shown(app) and shown(app))
        assert {"start", "pause", "stop", "table", "lab", "help", "quit"} <= set(shown(app))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "grid" in shown(app))
        await pilot.press("2")
        await until(pilot, lambda: {"open", "overlay", "settings", "rename", "delete"} <= set(shown(app)))
        assert {"start", "pause", "stop", "table", "lab", "help", "quit"} <= set(shown(app))


def shown(app: EpochtopApp) -> list[str]:
    return [key.name for key in app.screen.query_one(KeyFooter).keys]


async def test_a_click_presses_a_key(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        await until(pilot, lambda: "grid" in shown(app))
        row = app.screen.query_one(KeyFooter).render_line(0).text
        await pilot.click(KeyFooter, offset=(row.index("grid"), 0))
        await until(pilot, lambda: app.main.board.shows_grid)
