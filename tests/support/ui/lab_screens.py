"""The Lab page without clocks, threads or engines: what it shows is what a test gave it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.lab.saved_results import ResultIndex
from epochtop.tui.lab.screen import LabScreen
from tests.support.ui.screens import furnished, still_app


async def in_the_lab(pilot: Pilot[int]) -> LabScreen:
    """Press the key, and have the lists show what the home folder holds."""
    app = await furnished(pilot)
    await pilot.press("4")
    await pilot.pause()
    await list_kept(pilot)
    return app.lab.page


async def list_kept(pilot: Pilot[int]) -> None:
    """Have the lists show what the home folder holds; a result that is open is read to its end."""
    app = pilot.app
    assert isinstance(app, EpochtopApp)
    app.lab.page.list_results(ResultIndex(app.home).list())
    await settled(pilot)


async def show_result(pilot: Pilot[int], run: Path) -> None:
    """Open a result and read it to its end, or as far as it has come."""
    app = pilot.app
    assert isinstance(app, EpochtopApp)
    app.lab.page.open(run)
    await settled(pilot)


async def settled(pilot: Pilot[int]) -> None:
    """Everything that is written by now is taken in and drawn."""
    app = pilot.app
    assert isinstance(app, EpochtopApp)
    shown = app.lab.page.stage.shown
    while shown is not None and not shown.following.caught_up:
        await asyncio.sleep(0.01)
        app.beat()
    app.beat()
    await pilot.pause()
    await pilot.pause()


def text_of(app: EpochtopApp) -> str:
    """The characters of the screen."""
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())


class Remembering:
    """In the place of the thread that asks engines: remembers what it was asked for."""

    def __init__(self) -> None:
        self.measured: list[tuple[ExperimentRequest, RunSpec, Path]] = []
        self.begun: list[RunSpec] = []
        self.warmed = 0

    def measure(self, asked: ExperimentRequest, spec: RunSpec, home: Path) -> None:
        self.measured.append((asked, spec, home))

    def begin(self, spec: RunSpec, home: Path) -> None:
        self.begun.append(spec)

    def warm(self) -> None:
        self.warmed += 1

    def describe(self, spec: RunSpec) -> None:
        pass

    def exit_code(self, run: Path) -> int | None:
        return None

    def close(self) -> None:
        pass


def app_with(home: Path) -> tuple[EpochtopApp, Remembering]:
    """A still app that believes it can start engines."""
    app, starter = still_app(home), Remembering()
    app.engine.starter = starter  # type: ignore[assignment]
    return app, starter


async def choose(pilot: Pilot[Any], app: EpochtopApp, name: str, value: str) -> None:
    """Put a value into a field of the page."""
    app.lab.page.query_one(f"#field-{name}").value = value  # type: ignore[attr-defined]
    await pilot.pause()
