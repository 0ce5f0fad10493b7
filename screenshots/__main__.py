"""`make screenshots`: pictures of the app, from real runs and measurements on this machine.

`python -m screenshots NAME…` makes only the pictures of these lab experiments; the name `app` stands for all others. Every
curve is trained while the script runs; nothing is drawn by hand.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from epochtop.engine.lab.catalog import NAMES, find
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.client.standby import Standby
from tests.support.engines import Engine

FOLDER = Path(__file__).parent
SMALL, COMFORTABLE, WIDE = (80, 24), (120, 40), (200, 60)
RIVAL = RunSpec(threads=1, device="cpu", hidden=(16,), learning_rate=0.05, momentum=0.5, name="momentum-16")
IRIS = RunSpec(threads=1, device="cpu", save_every=2.0)
RUNNING = RunSpec(threads=1, device="cpu", save_every=2.0, executor="eager", epochs=100_000)
"""Eager, so that it runs long enough for a picture; a graph would finish first."""
DIVERGING = RunSpec(
    threads=1, device="cpu", learning_rate=3, momentum=0.98, weight_decay=0.5, epochs=2000, name="too-hot"
)


def app_on(home: Path) -> EpochtopApp:
    """The app as users see it, on a machine called box."""
    return EpochtopApp(home, host="box")


async def take(
    name: str,
    home: Path,
    size: tuple[int, int],
    run: Path,
    step: int,
    keys: tuple[str, ...] = (),
    overlay: str = "",
    live: bool = False,
) -> None:
    """Open a run, wait until `step` is on the screen, press keys, and save the picture."""
    app = app_on(home)
    async with app.run_test(size=size) as pilot:
        while not app.furnished or not (app.engine.torch or live):
            await pilot.pause(0.05)
        if app.runs.session is None or app.runs.session.run != run:
            app.open(run)
        while app.runs.session is None or (app.runs.session.state.step < step and not app.runs.session.state.over):
            await pilot.pause(0.05)
        if overlay:
            await pilot.press("2", *["down"] * list(app.main.runs.summaries).index(overlay), "o", "0")
        await pilot.press(*keys)
        await pilot.pause(0.3 if live else 2.0)  # the second reading of the machine is the first that has a load
        app.clear_notifications()
        await pilot.pause(0.2)
        app.save_screenshot(f"{name}.svg", str(FOLDER))
    print(f"{name}.svg", flush=True)


def pictures(home: Path) -> None:
    """Make all pictures except those of the lab."""
    rival, diverged, finished = (trained(spec, home) for spec in (RIVAL, DIVERGING, IRIS))
    asyncio.run(take("finished-120x40", home, COMFORTABLE, finished, 20_000))
    asyncio.run(take("finished-80x24", home, SMALL, finished, 20_000))
    asyncio.run(take("overlay-120x40", home, COMFORTABLE, finished, 20_000, ("l",), overlay=rival.name))
    asyncio.run(take("diverged-120x40", home, COMFORTABLE, diverged, 1, ("l",)))
    for name, size in (("running-120x40", COMFORTABLE), ("running-80x24", SMALL), ("running-200x60", WIDE)):
        with Engine() as engine:
            running = engine.train(RUNNING, home)
            asyncio.run(take(name, home, size, running, 30_000, live=True))
            engine.wait()


async def take_result(name: str, home: Path, size: tuple[int, int], run: Path) -> None:
    """Open the result of an experiment and save the picture."""
    app = app_on(home)
    async with app.run_test(size=size) as pilot:
        while not app.furnished or not app.engine.torch:
            await pilot.pause(0.05)
        app.lab.open_result(run)
        while not (app.lab.page.stage.shown and app.lab.page.stage.shown.state.over):
            await pilot.pause(0.05)
        await pilot.pause(1.0)
        app.clear_notifications()
        await pilot.pause(0.2)
        app.save_screenshot(f"{name}.svg", str(FOLDER))
    print(f"{name}.svg", flush=True)


def lab_pictures(home: Path, names: tuple[str, ...]) -> None:
    """Run the experiments and make their pictures; each takes up to a minute."""
    for name in names:
        standby = Standby()
        reply = standby.measure(ExperimentRequest(name=name), find(name).job or RunSpec(), home)
        assert isinstance(reply, Accepted), reply
        standby.process.wait()
        asyncio.run(take_result(f"lab-{name}-120x40", home, COMFORTABLE, Path(reply.run)))


def trained(spec: RunSpec, home: Path) -> Path:
    """Train a run to its end in an engine; returns its directory."""
    with Engine() as engine:
        run = engine.train(spec, home)
        engine.wait()
    return run


def main(names: list[str]) -> None:
    """Make all pictures, or those of `names` (`app` or experiments), in a temporary home folder."""
    for name in ("NO_COLOR", "TEXTUAL_THEME"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        if not names or "app" in names:
            pictures(Path(folder))
        lab_pictures(Path(folder), tuple(name for name in names if name != "app") if names else NAMES)


if __name__ == "__main__":
    main(sys.argv[1:])
