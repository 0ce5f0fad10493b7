"""Key x on a verdict: the setting is trained, and what it gained is told. No engine runs; what it says is written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.client.messages import RunStarted
from tests.support.lab_runs import events_of, write_experiment
from tests.support.runs import events_of as run_events
from tests.support.runs import finished, losses_like_iris, started, windows, write_run
from tests.support.ui.lab_screens import app_with, in_the_lab, settled
from tests.support.ui.screens import show_run


async def test_x_trains_with_the_setting_and_reports_the_gain(home: Path) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        await pilot.press("x")
        await pilot.pause()
        assert app.screen is app.main
        assert starter.begun == [RunSpec(executor="graph")]
        values = losses_like_iris(2_000)
        end = finished("finished", values, steps_per_second=1 / 15e-6)
        run = write_run(home, "iris-mlp-7f3a", [started(2_000), *windows(values), end], executor="graph")
        app.post_message(RunStarted(run))
        await pilot.pause()
        await show_run(pilot, run, 2_000)
        assert "made it 10.1 × as fast" in lab.gains["reads-7f3a"]
        await pilot.press("4", "a")
        await settled(pilot)
        assert any("Gained     executor=graph made it 10.1 × as fast" in text for text, _ in lab.result.rows)


async def test_a_run_that_tries_nothing_is_compared_with_nothing(home: Path) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        await pilot.press("x")
        await pilot.pause()
        app.on_standby_died(_died())
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert len(starter.begun) == 2
        run = write_run(home, "iris-mlp-7f3a", run_events("finished"))
        app.post_message(RunStarted(run))
        await pilot.pause()
        await show_run(pilot, run, 20_000)
        assert lab.gains == {}


def _died() -> Any:
    from epochtop.tui.client.messages import StandbyDied

    return StandbyDied("the engine ended (exit status 1)", starting=True)


async def test_without_a_setting_there_is_nothing_to_try(home: Path) -> None:
    write_experiment(home, "reads-7f3a", events_of("stopped"))
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        assert lab.stage.shown is not None
        assert lab.stage.shown.state.concluded is not None
        setting = lab.stage.shown.state.concluded.verdict.setting
        assert lab.check_action("try", ()) is (True if setting else None)
        await pilot.press("x")
        assert len(starter.begun) == bool(setting)
