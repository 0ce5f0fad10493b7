"""The table of runs: CPU time to list many runs with many series, and from a key to its effect."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import process_time
from typing import Any

from textual.pilot import Pilot

from epochtop.engine.runs.table.table import RunTable
from epochtop.tui.runs_table.page import RunsTablePage
from epochtop.tui.screens.run_list import Lister
from tests.bench.tables import Figure, show, spread
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, script_ended, write_script_run
from tests.support.ui.screens import furnished, still_app

RUNS, SERIES, STEPS = 1_000, 100, 10
MOST_RUNS = 2_000
ROUNDS = 5
KEYS = ("down", "pagedown", "right", "s", "g", "g", "space", "slash", "l", "r", ">", "0", "enter")


def write(home: Path, runs: int, series: int) -> None:
    """Runs of scripts with random values and a few settings."""
    numbers = random.Random(1)
    for run in range(runs):
        values = {
            f"part{index % 7}__metric{index}": [numbers.random() for _ in range(STEPS)] for index in range(series - 1)
        }
        events = [SCRIPT_STARTED, logged(0, loss=[numbers.random()] * STEPS, **values), script_ended(STEPS)]
        config = {"lr": 10.0 ** -(run % 4), "seed": run % 8, "width": run % 3}
        write_script_run(home, f"run-{run:04d}", events, name=f"net {run}", config=config)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = process_time()
    work()
    return process_time() - start


def listing() -> list[Figure]:
    """CPU time to list runs: at first, by a new process, and again."""
    title = f"{RUNS:,} runs × {SERIES} series"
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write(home, RUNS, SERIES)
        first = seconds(lambda: RunTable(home).list())
        stored = [seconds(lambda: RunTable(home).list()) for _ in range(ROUNDS)]
        table = RunTable(home)
        table.list()
        again = [seconds(table.list) for _ in range(ROUNDS)]
        lister = Lister(home)
        narrow = seconds(lister.list)
        narrow_again = [seconds(lister.list) for _ in range(ROUNDS)]
    return [
        Figure(f"{title}, read for the first time, s of CPU", f"{first:.2f}", "≤ 1"),
        Figure("  by a new process", spread(stored, "{:.2f}"), "≤ 1"),
        Figure("  again, nothing changed", spread(again)),
        Figure("  the list of the main screen, at first", f"{narrow:.2f}"),
        Figure("  the list of the main screen, again", spread(narrow_again)),
    ]


async def _keys(home: Path) -> dict[str, float]:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        await pilot.press("2", "2")
        await pilot.pause()
        page = app.screen
        assert isinstance(page, RunsTablePage)
        page.show_runs(page._source.read())
        await pilot.pause()
        return {f"{place}: {key}": await _effect(pilot, pilot.press(key)) for place, key in enumerate(KEYS)}


async def _effect(pilot: Pilot[Any], press: Awaitable[None]) -> float:
    """Milliseconds of CPU until the app is idle again after a key, with its picture drawn."""
    start = process_time()
    await press
    await pilot.pause()
    return 1e3 * (process_time() - start)


def keys() -> list[Figure]:
    """CPU time from a key to its effect."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), MOST_RUNS, 10)
        times = asyncio.run(_keys(Path(name)))
    slowest = max(times, key=lambda key: times[key])
    figures = [Figure(f"{MOST_RUNS:,} runs, key to effect, ms of CPU", spread(list(times.values()), "{:.0f}"), "≤ 100")]
    return [*figures, Figure("  slowest key", f"{slowest.partition(': ')[2]}, {times[slowest]:.0f} ms")]


def main() -> None:
    """Print the figures."""
    show("table of runs", [*listing(), *keys()])
