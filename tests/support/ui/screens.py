"""The app without clocks, threads or engines: what it shows is what a test gave it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from epochtop.engine.hardware import CoreLoad, Fact
from epochtop.engine.runs.index import run_paths, summarize
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.machine.panel import MachinePanel
from tests.support.engines import HANGING_S
from tests.support.fakes.machines import a_machine, a_sample
from tests.support.runs import CREATED

NOW = CREATED + 125


async def until(pilot: Pilot[Any], condition: Callable[[], object]) -> None:
    """Let the app run until `condition` is true: for what a worker, a timer or the footer shows later than one pause."""
    patience = time.monotonic() + HANGING_S
    while not condition():
        assert time.monotonic() < patience, "the app never got there"
        await pilot.pause(0.01)


async def beating(app: EpochtopApp, pilot: Pilot[Any], condition: Callable[[], object]) -> None:
    """Beat until the condition holds."""

    def beat_then_look() -> object:
        app.beat()
        return condition()

    await until(pilot, beat_then_look)


def has_read_all(app: EpochtopApp) -> bool:
    """Whether the open run and the runs drawn with it are over and the app has taken in all their events."""
    stage = app.runs.stage
    if stage.session is None or stage.catching_up:
        return False
    followings = (stage.session.following, *(overlay.following for overlay in stage.overlays.values()))
    return all(following.done for following in followings)


def still_app(home: Path) -> EpochtopApp:
    """An app on `home` that does nothing by itself."""
    home.mkdir(parents=True, exist_ok=True)
    app = EpochtopApp(home, live=False, now=lambda: NOW, host="box")
    app.engine.torch = "torch 2.13.0"
    app.NOTIFICATION_TIMEOUT = 3600  # type: ignore[misc] # a test may look at a notification late
    return app


async def furnished(pilot: Pilot[int]) -> EpochtopApp:
    """The app once all its regions are there, with a machine and the list of runs."""
    app = pilot.app
    assert isinstance(app, EpochtopApp)
    while not app.furnished:
        await pilot.pause()
    panel = app.main.query_one(MachinePanel)
    panel.show_machine(a_machine())
    for percent in (12.0, 30.0, 55.0, 97.0, 88.0, 97.0):
        cores = (CoreLoad(0, percent), CoreLoad(1, percent / 2))
        panel.show_sample(a_sample(cpu_percent=Fact(percent), core_percents=cores))
    await list_runs(pilot)
    return app


async def list_runs(pilot: Pilot[int]) -> None:
    """Have the list show what the home folder holds."""
    app = pilot.app
    assert isinstance(app, EpochtopApp)
    app.main.runs.post_message(app.main.runs.Listed([summarize(path) for path in run_paths(app.home)]))
    await pilot.pause()


async def show_run(pilot: Pilot[int], run: Path, step: int) -> None:
    """Open a run and take in its events until `step` is reached."""
    app = pilot.app
    assert isinstance(app, EpochtopApp)
    app.open(run)
    while app.runs.session is not None and not (
        app.runs.session.state.step >= step and app.runs.session.following.caught_up
    ):
        await asyncio.sleep(0.01)
        app.beat()
    app.beat()
    await pilot.pause()
    await list_runs(pilot)
    await pilot.pause()
