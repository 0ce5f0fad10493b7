"""Pictures of the table of runs, and of a group of runs as a mean with a band."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.runs_table.page import RunsTablePage
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, logged_at, script_ended, write_script_run
from tests.support.table_runs import NOW, run_details
from tests.support.ui.screens import beating, furnished, has_read_all, still_app, until
from tests.tui.board.test_board import complete
from tests.tui.screens.test_screenshots import SIZES, Compare


def runs(count: int) -> list[RunDetails]:
    """Runs of a sweep over learning rate, model and seed."""
    numbers = random.Random(1)
    details = []
    for number in range(count):
        loss, accuracy = 0.1 + numbers.random(), 0.6 + numbers.random() / 3
        config = {"lr": 10.0 ** -(1 + number % 4), "model": ("resnet18", "resnet50", "vit")[number % 3], "seed": number}
        state = "failed" if number % 11 == 5 else "running" if number == 0 else "finished"
        details.append(
            run_details(
                f"sweep-{number:04d}",
                config,
                state=state,
                age_s=60.0 + 600 * number,
                seconds=90.0 + number,
                tags=("base",) if number % 7 == 0 else (),
                train__loss=(loss, loss, 2.5),
                val__loss=(loss + 0.1, loss, 2.5),
                val__accuracy=(accuracy, 0.1, accuracy + 0.02),
            )
        )
    return details


@pytest.mark.parametrize(
    ("count", "size", "keys"),
    [
        (0, "80x24", ()),
        (1, "120x40", ()),
        (30, "80x24", ()),
        (30, "120x40", ("shift+tab", "greater_than_sign", "b", "b", "space", "space", "space")),
        (30, "200x60", ("shift+tab", "g")),
        (2000, "120x40", ("slash", *"lr>=0.01 se")),
    ],
)
def test_the_table(snap_compare: Compare, home: Path, count: int, size: str, keys: tuple[str, ...]) -> None:
    app = still_app(home)

    async def run_before(pilot: Pilot[Any]) -> None:
        await furnished(pilot)
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, RunsTablePage) and app.screen.query("KeyFooter"))
        page: Any = app.screen
        page._now = lambda: NOW
        page.show_runs(runs(count))
        await pilot.press(*keys)
        await pilot.pause()

    assert snap_compare(app, run_before=run_before, terminal_size=SIZES[size])


@pytest.mark.parametrize(("size", "grid"), [("80x24", False), ("120x40", False), ("120x40", True)])
def test_a_group_as_a_band(snap_compare: Compare, home: Path, size: str, grid: bool) -> None:
    numbers = random.Random(2)
    for number in range(8):
        level = 0.5 + numbers.random()
        loss = [0.2 + level * 2.0 ** (-step / 40) + numbers.gauss(0, 0.03) for step in range(300)]
        validation = [0.3 + level * 2.0 ** (-step / 40) for step in range(0, 300, 50)]
        accuracy = [0.95 - 0.4 * level * 2.0 ** (-step / 60) for step in range(300)]
        values = logged(0, 2.0, train__loss=loss, accuracy=accuracy, lr=[0.1 - step / 3001 for step in range(300)])
        events = [SCRIPT_STARTED, values, logged_at([*range(0, 300, 50)], 2.0, val__loss=validation), script_ended(300)]
        write_script_run(home, f"seed-{number}", events, config={"lr": 0.1, "seed": number})
    app = still_app(home)

    async def run_before(pilot: Pilot[Any]) -> None:
        await furnished(pilot)
        paths = {home / f"seed-{number}": f"seed-{number}" for number in range(8)}
        app.runs.stage.draw([("lr=0.1", paths)])
        app.open(home / "seed-0")
        chart = app.main.chart
        await beating(app, pilot, lambda: [run.steps for run in chart.trace.runs] == [300] * 8 and has_read_all(app))
        app.main.board.focus_view()
        if grid:
            await pilot.press("g")
            await beating(
                app,
                pilot,
                lambda: (
                    complete(app.main.board)
                    and all(len(run.run.series) == 4 for run in chart.trace.runs)
                    and has_read_all(app)
                ),
            )
        app.beat()
        await pilot.pause()

    assert snap_compare(app, run_before=run_before, terminal_size=SIZES[size])
