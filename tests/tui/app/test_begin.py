"""The screen of an empty home: three ways to begin, each with a key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from epochtop.engine.runs.opened.folders import OpenedLogs
from epochtop.tui.app import run_controller
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.app.begin import dialogs
from epochtop.tui.forms.dialogs import Entries
from tests.support.engines import HANGING_S
from tests.support.runs import events_of, write_run
from tests.support.ui.charts import text
from tests.support.ui.screens import beating, furnished, still_app, until


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_an_empty_home_names_three_ways_to_begin(home: Path, size: tuple[int, int]) -> None:
    app = still_app(home)
    async with app.run_test(size=size) as pilot:
        await furnished(pilot)
        words = [" ".join(row.split()) for row in text(app.main.chart) if row.strip()]
        assert words == [
            "No runs yet. Three ways to begin:",
            "ctrl+s train Iris, a few seconds (settings: 1)",
            "R run a script: epochtop run python train.py",
            "O open logs: epochtop open PATH",
        ]


async def test_attach_draws_the_curve_before_the_form_exists(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = EpochtopApp(home, attach=write_run(home, "iris-7f3a", events_of("finished")), host="box")
    furnish, drawn = app.main.furnish, list[str]()

    async def note(*regions: Any) -> None:
        drawn.extend(text(app.main.chart))
        await furnish(*regions)

    monkeypatch.setattr(run_controller, "PREVIEW_S", HANGING_S)
    monkeypatch.setattr(app, "begin", lambda: None)
    monkeypatch.setattr(app.main, "furnish", note)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.furnished)
    assert any("⠒⠒ train 0." in row for row in drawn)


async def entered(pilot: Any, key: str, value: str) -> Any:
    """Press a key, and submit a value in its dialog."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, Entries) and pilot.app.screen.query("Entry:focus"))
    pilot.app.screen.query_one(Input).value = value
    await pilot.press("enter")
    return pilot.app.screen


async def test_logs_are_opened_from_the_screen(home: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "metrics.csv").write_text("epoch,step,train_loss\n" + "".join(f"0,{n},{1 / (n + 1)}\n" for n in range(9)))
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        screen = await entered(pilot, "O", str(tmp_path / "nothing"))
        assert "there is no file or folder" in str(screen.query_one(".error").render())
        await pilot.press("escape")
        await entered(pilot, "O", str(logs))
        await beating(app, pilot, lambda: app.runs.session is not None and app.main.chart.trace.steps == 9)
        assert [log.path for log in OpenedLogs(home).list()] == [app.runs.session.run]  # type: ignore[union-attr]


async def test_a_script_is_run_from_the_screen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHTOP_HOME", str(home))
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        screen = await entered(pilot, "R", "no-such-program --lr 0.1")
        assert "there is no such program" in str(screen.query_one(".error").render())
        await pilot.press("escape")
        await entered(pilot, "R", f"{sys.executable} -S -c 'print(\"epoch 3 loss: 0.69\")'")
        await beating(app, pilot, lambda: app.runs.session is not None and app.runs.session.state.state == "finished")
        assert app.runs.session is not None
        assert app.runs.session.run.parent == home
    assert [supervisor.wait() for supervisor in dialogs.STARTED] == [0]
    dialogs.STARTED.clear()
