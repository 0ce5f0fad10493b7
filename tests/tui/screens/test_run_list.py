"""The list of runs on the main screen: any number of runs, of which only visible rows cost anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.runs.index import RunSummary
from epochtop.tui.screens import run_list
from epochtop.tui.screens.run_list import Lister
from tests.support.fakes.script_runs import SCRIPT_STARTED, script_ended, write_script_run
from tests.support.ui.screens import NOW, furnished, still_app, until


def summaries(count: int, state: str = "finished") -> list[RunSummary]:
    return [RunSummary(id=f"run-{n:04d}", state=state, created=NOW - n, final_loss=0.5) for n in range(count)]  # type: ignore[arg-type]


async def test_two_thousand_runs_are_reached_by_key_and_only_visible_rows_are_composed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = still_app(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await furnished(pilot)
        runs = app.main.runs
        rows: list[str] = []
        row = run_list._row
        monkeypatch.setattr(run_list, "_row", lambda run, *more: (rows.append(run.id), row(run, *more))[1])
        runs.show(summaries(2_000))
        await pilot.press("2", "end")
        await until(pilot, lambda: "run-1999" in rows)
        assert (runs.chosen, runs.count) == ("run-1999", 2_000)
        assert len(set(rows)) < 40
        assert runs.line(1999).split()[1:3] == ["run-1999", "finished"]


async def test_the_cursor_stays_on_its_run_when_a_new_one_appears(tmp_path: Path) -> None:
    app = still_app(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await furnished(pilot)
        runs = app.main.runs
        runs.show(summaries(5))
        await pilot.press("2", "down")
        assert runs.chosen == "run-0001"
        runs.show([RunSummary(id="new", state="running", created=NOW), *summaries(5)])
        assert runs.chosen == "run-0001"
        runs.show([RunSummary(id="new", state="running", created=NOW), *summaries(5, "failed")])
        assert runs.line(2).split()[2] == "failed"


def test_runs_that_take_too_long_to_read_are_listed_by_the_next_call(tmp_path: Path) -> None:
    for name in "ab":
        write_script_run(tmp_path, name, [SCRIPT_STARTED, script_ended(1)])
    lister = Lister(tmp_path)
    assert lister.list(-1.0) == []
    assert sorted(run.id for run in lister.list()) == ["a", "b"]
    assert sorted(run.id for run in lister.list(-1.0)) == ["a", "b"]
