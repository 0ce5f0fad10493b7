"""The app executes the task of another user's run only after a question that names the owner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from epochtop.engine.runs import ownership
from epochtop.engine.runs.ownership import Risk
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.forms.dialogs import Question
from tests.support.runs import events_of, write_run
from tests.support.ui.screens import furnished, show_run, still_app

TASK = "/home/eve/train.py:make_task"


class RecordedStarter:
    """Remembers what it was asked to resume."""

    def __init__(self) -> None:
        self.resumed: list[tuple[Path, str]] = []

    def resume(self, run: Path, trusted_owner: str = "") -> None:
        self.resumed.append((run, trusted_owner))

    def close(self) -> None:
        pass


@pytest.fixture
def run(home: Path) -> Path:
    return write_run(home, "train-own-1a2b", events_of("stopped"), task=TASK)


@pytest.fixture
def of_eve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run belongs to another user."""
    monkeypatch.setattr(ownership, "code_risks", lambda run: [Risk(run, "belongs to eve", "eve")])


def task_of(app: EpochtopApp) -> str:
    return app.main.form.spec().task


async def answered(pilot: Pilot[int], action: Callable[[], object], button: str) -> str:
    """Do something, answer the question that it asks, and return the question."""
    action()
    while not isinstance(pilot.app.screen, Question):
        await pilot.pause()
    text = str(pilot.app.screen.query_one(Static).content)
    await pilot.click(f"#{button}")
    await pilot.pause()
    return text


@pytest.mark.usefixtures("of_eve")
async def test_settings_of_another_user_are_loaded_only_after_a_question(home: Path, run: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        text = await answered(pilot, lambda: app.requests.load_settings(run), "cancel")
        assert "belongs to eve" in text
        assert TASK in text
        assert task_of(app) == ""
        await answered(pilot, lambda: app.requests.load_settings(run), "trust")
        assert task_of(app) == TASK


@pytest.mark.usefixtures("of_eve")
async def test_a_run_of_another_user_is_resumed_only_after_a_question(home: Path, run: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        starter = RecordedStarter()
        app.engine.starter = starter  # type: ignore[assignment]
        await answered(pilot, lambda: app.requests.resume(run), "cancel")
        assert starter.resumed == []
        await answered(pilot, lambda: app.requests.resume(run), "trust")
        assert starter.resumed == [(run, "eve")]


@pytest.mark.usefixtures("of_eve")
async def test_the_job_of_another_user_is_measured_only_after_a_question(
    home: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        await show_run(pilot, run, 1)
        measured: list[str] = []
        monkeypatch.setattr(app.lab, "measure", lambda _, spec: measured.append(spec.task))
        await answered(pilot, app.lab.analyze_open_run, "cancel")
        assert measured == []
        await answered(pilot, app.lab.analyze_open_run, "trust")
        assert measured == [TASK]


async def test_the_users_own_run_and_built_in_models_need_no_question(home: Path, run: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        app.requests.load_settings(run)
        await pilot.pause()
        assert task_of(app) == TASK


@pytest.mark.usefixtures("of_eve")
async def test_built_in_models_of_another_user_need_no_question(home: Path) -> None:
    run = write_run(home, "wine-mlp-1a2b", events_of("stopped"), dataset="wine")
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        app.requests.load_settings(run)
        await pilot.pause()
        assert app.main.form.spec().dataset == "wine"


async def test_a_run_that_everybody_can_write_is_not_loaded(home: Path, run: Path) -> None:
    run.chmod(0o777)
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        app.requests.load_settings(run)
        await pilot.pause()
        assert task_of(app) == ""
        assert not isinstance(app.screen, Question)
