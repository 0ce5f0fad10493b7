"""What is kept of experiments: listed, opened again, exported, deleted. No engine runs; what it says is written here."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import RECORD, lab_home
from epochtop.tui.forms.dialogs import Question
from tests.support.lab_runs import NO_GPU, ended, events_of, prepared, rows_of_reads, write_experiment
from tests.support.runs import engine_alive
from tests.support.ui.lab_screens import app_with, in_the_lab, settled, show_result, text_of
from tests.support.ui.screens import still_app, until


async def test_a_kept_result_is_opened_again(home: Path) -> None:
    write_experiment(home, "reads-11c0", events_of("stopped"), age_s=600)
    write_experiment(home, "reads-7f3a", events_of("finished"))
    app = still_app(home)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = await in_the_lab(pilot)
        lab.result_list.focus()
        await pilot.press("down", "enter")
        await settled(pilot)
        assert lab.stage.shown is not None
        assert lab.stage.shown.run.name == "reads-11c0"
        assert "Result · reads-11c0" in text_of(app)
        assert "stopped ■" in text_of(app)
        await pilot.press("escape")
        assert lab.experiments.has_focus
        assert "Measures" in text_of(app)


async def test_a_live_experiment_is_shown_again_after_the_app_was_closed(home: Path) -> None:
    run = write_experiment(home, "reads-7f3a", events_of("running"))
    with engine_alive(run):
        app = still_app(home)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert not app.lab.open_at_start(None)
            assert app.busy() == "reads-7f3a"
            await pilot.press("4")
            await settled(pilot)
            assert "● measuring" in text_of(app)


async def test_a_live_experiment_that_cannot_be_read_is_reported_and_the_app_begins(home: Path) -> None:
    run = write_experiment(home, "reads-7f3a", events_of("running"))
    (run / RECORD).write_bytes(b"{")
    with engine_alive(run):
        app = still_app(home)
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await pilot.pause()
            assert not app.lab.open_at_start(None)
            assert not app.busy()
            await pilot.pause()
            assert "cannot open" in text_of(app)


async def test_the_setting_of_a_result_without_a_job_goes_into_the_job_of_the_run_panel(home: Path) -> None:
    verdict = Verdict(
        finding="bf16 is faster", evidence=(), next_step="train with it", uncertainty="", setting={"precision": "bf16"}
    )
    run = write_experiment(home, "matmul-7f3a", [prepared(), ended(verdict)], dataset="wine")
    app, starter = app_with(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await show_result(pilot, run)
        app.main.form.load(RunSpec(dataset="digits", hidden=(30, 20)))
        await pilot.pause()
        await pilot.press("x")
        await pilot.pause()
        (spec,) = starter.begun
        assert (spec.dataset, spec.hidden, spec.precision) == ("digits", (30, 20), "bf16")
        assert app.main.form.spec() == spec


async def test_the_app_can_be_opened_with_a_result(home: Path) -> None:
    run = write_experiment(home, "reads-7f3a", events_of("finished"))
    app = still_app(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert app.lab.open_at_start(run)
        await pilot.pause()
        await settled(pilot)
        assert "Verdict    on cpu" in text_of(app)


@pytest.mark.parametrize(
    ("state", "words"), [("failed", "out of memory on the GPU"), ("died", "the engine ended before")]
)
async def test_a_bad_end_says_why_and_keeps_the_rows(home: Path, state: str, words: str) -> None:
    write_experiment(home, "reads-7f3a", events_of(state))
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        await pilot.press("a")
        await settled(pilot)
        assert words in text_of(app)
        assert "✗ reads" in text_of(app)
        assert lab.stage.shown is not None
        assert bool(lab.stage.shown.state.rows) == (state == "died")


async def test_a_result_is_deleted_after_a_question(home: Path) -> None:
    older = write_experiment(home, "reads-11c0", events_of("stopped"), age_s=600)
    newer = write_experiment(home, "reads-7f3a", events_of("finished"))
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        lab.result_list.focus()
        await pilot.press("d")
        await pilot.pause()
        assert isinstance(app.screen, Question)
        await pilot.press("escape")
        await pilot.pause()
        assert newer.exists()
        await pilot.press("delete")
        await pilot.pause()
        await pilot.press("right", "enter")
        await until(pilot, lambda: lab.stage.shown is not None and lab.stage.shown.run == older)
        await settled(pilot)
        assert not newer.exists()
        assert older.exists()
        assert "reads-7f3a" not in text_of(app)
        assert lab.stage.shown is not None
        assert lab.stage.shown.run == older


async def test_a_live_experiment_is_not_deleted(home: Path) -> None:
    run = write_experiment(home, "reads-7f3a", events_of("running"))
    app = still_app(home)
    with engine_alive(run):
        async with app.run_test(size=(120, 40)) as pilot:
            lab = await in_the_lab(pilot)
            lab.result_list.focus()
            await pilot.press("d")
            await pilot.pause()
            assert app.screen is lab
            assert run.exists()
            assert "ctrl+x stops it" in text_of(app)


async def test_the_rows_of_a_result_are_exported(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    monkeypatch.chdir(tmp_path)
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await in_the_lab(pilot)
        await pilot.press("e")
        await pilot.pause()
    with open(tmp_path / "reads-7f3a.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(rows_of_reads())
    assert {row["kind"] for row in rows} == {"operators", "run", "launch"}


async def test_what_was_not_measured_is_reported(home: Path) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    app = still_app(home)
    async with app.run_test(size=(200, 60)) as pilot:
        lab = await in_the_lab(pilot)
        words = " ".join(" ".join(text for text, _ in lab.result.rows).split())
        assert f"Not seen {NO_GPU}" in words


async def test_results_of_an_unknown_experiment_are_skipped(home: Path) -> None:
    write_experiment(home, "later-7f3a", events_of("finished"))
    (lab_home(home) / "reads-0000").mkdir()
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        assert lab.stage.shown is None
        await pilot.press("a")
        await pilot.pause()
        assert "No results yet" in text_of(app)
