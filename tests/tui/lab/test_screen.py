"""The Lab page: its keys, what it asks for, what it shows of what is kept. No engine runs; what it says is written here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import Inbox
from epochtop.tui.client.messages import ExperimentRefused, ExperimentStarted
from epochtop.tui.forms.dialogs import Question
from epochtop.tui.lab.screen import LabScreen
from epochtop.tui.screens.guide import GuideScreen
from tests.support.lab_runs import CREATED, events_of, write_experiment
from tests.support.runs import engine_alive, write_run
from tests.support.runs import events_of as run_events
from tests.support.ui.lab_screens import app_with, choose, in_the_lab, list_kept, settled, text_of
from tests.support.ui.screens import show_run, still_app, until

SIZES = [(80, 24), (120, 40), (200, 60)]


# --- the list --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_the_page_lists_explains_and_says_what_is_kept(home: Path, size: tuple[int, int]) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    app = still_app(home)
    async with app.run_test(size=size) as pilot:
        await in_the_lab(pilot)
        shown = text_of(app)
        assert "✓ reads" in shown
        assert "The cost of reading the loss" in shown
        assert "Measures" in shown
        assert "Steps with" in shown
        assert "7f3a" in shown
        assert "2 min" in shown
        assert "^q quit" in shown


async def test_escape_leads_back_to_the_chart_and_numbers_to_regions(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await pilot.press("escape")
        assert app.screen is app.main
        await pilot.press("4")
        assert isinstance(app.screen, LabScreen)
        await pilot.press("3")
        await pilot.pause()
        assert app.screen is app.main
        assert app.main.machine.has_focus


async def test_the_page_is_as_one_left_it(home: Path) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        await choose(pilot, app, "steps", "5000")
        await pilot.press("a", "0")
        await pilot.press("4")
        await pilot.pause()
        assert app.lab.page is lab
        assert lab.has_class("-result")
        assert lab.query_one("#field-steps").value == "5000"  # type: ignore[attr-defined]


async def test_keys_of_the_run_that_trains_are_not_on_this_page(home: Path) -> None:
    run = write_run(home, "iris-mlp-7f3a", run_events("running"))
    app = still_app(home)
    with engine_alive(run), Inbox_of(run) as inbox:
        async with app.run_test(size=(120, 40)) as pilot:
            await in_the_lab(pilot)
            await show_run(pilot, run, 9_500)
            await pilot.press("space", "s", "ctrl+x")
            await pilot.pause()
            assert inbox.read() == []
            assert "9,500 of 20,000" in text_of(app)


class Inbox_of:  # noqa: N801 - used as a word
    """What was commanded to a run."""

    def __init__(self, run: Path) -> None:
        self._inbox = Inbox(run)

    def __enter__(self) -> Inbox:
        return self._inbox

    def __exit__(self, *_: object) -> None:
        self._inbox.close()


# --- measuring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["enter", "ctrl+s"])
async def test_a_key_asks_for_the_experiment_under_the_cursor(home: Path, key: str) -> None:
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await pilot.press("q")
        await choose(pilot, app, "steps", "5000")
        await choose(pilot, app, "hidden", "64, 32")
        await pilot.press(key)
        await pilot.pause()
        ((asked, spec, where),) = starter.measured
        assert asked == ExperimentRequest(name="reads", fields={"steps": "5000"}, quick=True)
        assert spec == RunSpec(hidden=(64, 32))
        assert where == home
        assert "starting reads …" in text_of(app)
        await pilot.press(key)
        await pilot.pause()
        assert len(starter.measured) == 1


async def test_defaults_for_other_data_go_into_untouched_fields(home: Path) -> None:
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await choose(pilot, app, "batch_size", "17")
        await choose(pilot, app, "dataset", "mnist")
        assert app.lab.page.query_one("#field-hidden").value == "128"  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await pilot.pause()
        spec = starter.measured[0][1]
        assert (spec.dataset, spec.hidden, spec.batch_size, spec.optimizer) == ("mnist", (128,), 17, "adam")
        assert spec.learning_rate == 0.001


async def test_the_job_of_the_run_panel_can_be_measured(home: Path) -> None:
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        app.main.form.load(RunSpec(dataset="wine", hidden=(20,), learning_rate=0.3, threads=2))
        await pilot.press("f", "ctrl+s")
        await pilot.pause()
        assert starter.measured[0][1] == RunSpec(dataset="wine", hidden=(20,), learning_rate=0.3, threads=2)


async def test_a_wrong_field_has_its_error_next_to_it_and_nothing_is_requested(home: Path) -> None:
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await choose(pilot, app, "steps", "many")
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert not starter.measured
        assert "'many' is not a whole number from 1,000" in text_of(app)


async def test_a_refusal_of_the_engine_is_shown(home: Path) -> None:
    app, _ = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await pilot.press("ctrl+s")
        app.post_message(ExperimentRefused("there is no CUDA device here", "device"))
        await pilot.pause()
        assert app.lab.page.query_one("#row-device").has_class("-invalid")
        assert not app.engine.starting


async def test_rows_are_shown_as_they_come_and_the_end_when_it_comes(home: Path) -> None:
    app, starter = app_with(home)
    run = write_experiment(home, "reads-7f3a", [])
    events = events_of("finished")
    async with app.run_test(size=(80, 24)) as pilot:
        await in_the_lab(pilot)
        with engine_alive(run):
            write(run, events[:10])
            app.post_message(ExperimentStarted(run))
            await pilot.pause()
            await settled(pilot)
            shown = text_of(app)
            assert "● measuring" in shown
            assert "8 rows" in shown
            assert "running ●" in shown
            assert app.lab.page.check_action("measure", ()) is None
            write(run, events[10:])
            while app.lab.running is not None:
                app.beat()
                await pilot.pause(0.01)
        await settled(pilot)
        shown = text_of(app)
        assert "Verdict    on cpu a read costs 19" in shown
        assert "·· cpu, fitted" in shown
        assert starter.warmed == 1


def write(run: Path, events: list[Any]) -> None:
    """Append events as an engine does."""
    from epochtop.engine.protocol.events import encode

    with open(run / "events.jsonl", "ab") as log:
        log.write(b"".join(encode(event) + b"\n" for event in events))


async def test_ctrl_x_stops_the_experiment_and_not_the_run(home: Path) -> None:
    training = write_run(home, "iris-mlp-7f3a", run_events("running"))
    run = write_experiment(home, "reads-7f3a", events_of("running"))
    app = still_app(home)
    with ExitStack() as stack:
        stack.enter_context(engine_alive(training))
        stack.enter_context(engine_alive(run))
        experiment, other = stack.enter_context(Inbox_of(run)), stack.enter_context(Inbox_of(training))
        async with app.run_test(size=(120, 40)) as pilot:
            await in_the_lab(pilot)
            await show_run(pilot, training, 9_500)
            await pilot.press("ctrl+x")
            await pilot.pause()
            assert isinstance(experiment.read()[0], Stop)
            assert other.read() == []


async def test_beside_a_run_that_trains_it_asks_first(home: Path) -> None:
    run = write_run(home, "iris-mlp-7f3a", run_events("running"))
    app, starter = app_with(home)
    with engine_alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await in_the_lab(pilot)
            await show_run(pilot, run, 9_500)
            await pilot.press("ctrl+s")
            await pilot.pause()
            assert isinstance(app.screen, Question)
            assert "is training" in text_of(app)
            await pilot.press("escape")
            await pilot.pause()
            assert not starter.measured
            await pilot.press("ctrl+s")
            await pilot.pause()
            await pilot.press("right", "enter")
            await pilot.pause()
            assert len(starter.measured) == 1


async def test_a_run_is_not_started_during_an_experiment_without_a_question(home: Path) -> None:
    run = write_experiment(home, "reads-7f3a", events_of("running"))
    app, starter = app_with(home)
    with engine_alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await in_the_lab(pilot)
            await pilot.press("0", "ctrl+s")
            await pilot.pause()
            assert isinstance(app.screen, Question)
            assert "reads-7f3a is still running" in text_of(app)
            assert not starter.begun


# --- the guide -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["g", "f1"])
async def test_a_key_opens_the_guide_and_escape_closes_it(home: Path, key: str) -> None:
    app = still_app(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await in_the_lab(pilot)
        await pilot.press(key)
        await pilot.pause()
        assert isinstance(app.screen, GuideScreen)
        assert "Why a GPU can be slower than the CPU" in text_of(app)
        await pilot.press("end")
        await until(pilot, lambda: "unchanged" in text_of(app))  # it scrolls there
        await pilot.press("escape")
        assert isinstance(app.screen, LabScreen)


async def test_the_question_mark_shows_all_keys_of_the_page(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert app.screen.query("HelpPanel")
        await pilot.press("question_mark")
        await pilot.pause()
        assert not app.screen.query("HelpPanel")


async def test_the_newest_result_is_listed_first_and_a_new_one_appears(home: Path) -> None:
    import os

    older = write_experiment(home, "reads-11c0", events_of("finished"), age_s=600)
    os.utime(older / "lock", (CREATED - 600, CREATED - 600))
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        write_experiment(home, "reads-7f3a", events_of("finished"))
        await list_kept(pilot)
        assert [kept.id for kept in lab.results.listed] == ["reads-7f3a", "reads-11c0"]
        shown = text_of(app)
        assert shown.index("reads-7f3a") < shown.rindex("reads-11c0")
