"""Runs of scripts in the app: drawn from a plain writer, commanded, and any of their series on the chart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from epochtop.engine.protocol.events import COMMAND_IGNORED, Analyzed, AnyEvent, SettingDeclared, Warned, encode
from epochtop.engine.runs.index import run_paths, summarize
from epochtop.engine.runs.paths import COMMANDS, EVENTS, OUTPUT
from epochtop.engine.runs.reader import is_alive
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.forms.picker import Picker, matching
from epochtop.tui.screens.analysis import AnalysisScreen
from tests.support.engines import HANGING_S, wait_until
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, logged_at, script_ended, write_script_run
from tests.support.runs import engine_alive, events_of, write_run
from tests.support.ui.charts import text
from tests.support.ui.screens import beating, furnished, list_runs, still_app

RUN_FORMAT = Path(__file__).parents[3] / "docs" / "run-format.md"
WINDOWS: list[AnyEvent] = [
    SCRIPT_STARTED,
    SettingDeclared(name="lr", value=0.1, low=0.0, high=1.0),
    logged(0, 1.0, loss=[2.0, 1.5, 1.0, 0.5], lr=[0.1] * 4),
    logged_at([3], 1.0, val_loss=[0.75], val_accuracy=[0.5]),
]


@asynccontextmanager
async def opened(home: Path, run: Path) -> AsyncIterator[tuple[EpochtopApp, Pilot[Any]]]:
    """An app with the run open; :func:`beating` of a test calls its beat."""
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        app.open(run)
        await beating(app, pilot, lambda: app.main.chart.trace.steps > 0)
        yield app, pilot


def commands(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / COMMANDS).read_text().splitlines()]


async def test_a_run_that_begins_while_none_is_open_opens_and_takes_the_screen_from_no_other(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await furnished(pilot)
        first = write_script_run(home, "first-0001", WINDOWS)
        with engine_alive(first):
            await list_runs(pilot)
            await beating(app, pilot, lambda: app.runs.session is not None)
            second = write_script_run(home, "second-0001", WINDOWS)
            with engine_alive(second):
                await list_runs(pilot)
                await beating(app, pilot, lambda: "second-0001" in app.main.runs.summaries)
                assert app.runs.session is not None
                assert app.runs.session.run == first


# --- the example of the documentation -----------------------------------------------------------------------


def example() -> str:
    """The writer in docs/run-format.md."""
    section = RUN_FORMAT.read_text(encoding="utf-8").split("### A writer in plain Python")[1]
    match = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_writer_of_the_documentation_is_a_live_run_and_ends(tmp_path: Path) -> None:
    code = example()
    assert len([line for line in code.splitlines() if line.strip()]) <= 32
    environment = {"PATH": os.environ["PATH"], "EPOCHTOP_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-S", "-c", code], env=environment, stdin=subprocess.PIPE) as writer:
        wait_until(lambda: run_paths(tmp_path) and summarize(run_paths(tmp_path)[0]).steps)
        (run,) = run_paths(tmp_path)
        assert (run / "heartbeat").exists()
        if writer.poll() is None:
            assert is_alive(run) or writer.wait(HANGING_S) == 0
        assert writer.wait(HANGING_S) == 0
    summary = summarize(run)
    assert (summary.name, summary.state, summary.steps, summary.series) == ("plain", "finished", 200, "loss")
    assert summary.final_loss == pytest.approx(1 / 200)


# --- in the app ---------------------------------------------------------------------------------------------


async def test_a_live_script_has_title_status_and_chart(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", WINDOWS)
    with engine_alive(run):
        async with opened(tmp_path, run) as (app, _):
            assert "resnet lr3 · running ●" in str(app.main.title_line.render())
            assert "step 3" in str(app.main.status_line.render())
            rows = text(app.main.chart)
            assert rows[0].rstrip().endswith("⠒⠒ train 0.5000")
            assert rows[1].rstrip().endswith("▪ valid 0.7500")


async def test_pause_stop_and_settings_reach_the_script(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", WINDOWS)
    with engine_alive(run):
        async with opened(tmp_path, run) as (app, pilot):
            await pilot.press("space", "ctrl+x", "r")
            await beating(app, pilot, lambda: app.screen.query("#entry-0"))
            entry = app.screen.query_one("#entry-0", Input)
            assert entry.value == "0.1"
            entry.value = "7"
            await pilot.press("enter")
            await beating(app, pilot, lambda: "0 to 1" in str(app.screen.query_one(".error").render()))
            entry.value = "0.5"
            await pilot.press("enter")
            await beating(app, pilot, lambda: len(commands(run)) == 3)
    assert [command["type"] for command in commands(run)] == ["Pause", "Stop", "Set"]
    assert (commands(run)[2]["field"], commands(run)[2]["value"]) == ("lr", 0.5)


async def test_the_analysis_of_a_script_is_its_own_command_and_saving_is_not_offered(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", WINDOWS)
    with engine_alive(run):
        async with opened(tmp_path, run) as (app, pilot):
            assert app.check_action("save", ()) is None
            await pilot.press("a")
            await beating(app, pilot, lambda: bool(commands(run)))
    assert commands(run)[0]["type"] == "Analyze"


ANALYZED = Analyzed(time=0.0, first_step=4, steps=15, step_ms=10.0, parts_ms={"forward": 4.0, "rest": 6.0}, reads=())


def add(run: Path, event: AnyEvent) -> None:
    """Record one more event."""
    with open(run / EVENTS, "ab") as log:
        log.write(encode(event) + b"\n")


async def test_an_analysis_opens_when_it_arrives_and_can_be_repeated(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", WINDOWS)
    with engine_alive(run):
        async with opened(tmp_path, run) as (app, pilot):
            await pilot.press("a")
            await beating(app, pilot, lambda: len(commands(run)) == 1)
            assert not isinstance(app.screen, AnalysisScreen)
            add(run, ANALYZED)
            await beating(app, pilot, lambda: isinstance(app.screen, AnalysisScreen))
            await pilot.press("a")
            await beating(app, pilot, lambda: len(commands(run)) == 2)
            await pilot.press("escape")
            await beating(app, pilot, lambda: not isinstance(app.screen, AnalysisScreen))
            await pilot.press("a")
            await beating(app, pilot, lambda: isinstance(app.screen, AnalysisScreen))
    assert {command["type"] for command in commands(run)} == {"Analyze"}
    assert len(commands(run)) == 2


async def test_a_script_that_has_ended_shows_its_analysis_and_is_not_measured_again(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", [*WINDOWS, ANALYZED, script_ended(4)])
    async with opened(tmp_path, run) as (app, pilot):
        await beating(app, pilot, lambda: app.runs.session is not None and app.runs.session.state.over)
        await pilot.press("a")
        await beating(app, pilot, lambda: isinstance(app.screen, AnalysisScreen))
        await pilot.press("a")
        await beating(app, pilot, lambda: any("only a running script" in note.message for note in app._notifications))
    assert commands(run) == []


async def test_the_log_shows_what_the_script_prints_without_colors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", WINDOWS)
    lines: list[str] = []

    def add_output(printed: bytes) -> None:
        with open(run / OUTPUT, "ab") as file:
            file.write(printed)

    with engine_alive(run):
        async with opened(tmp_path, run) as (app, pilot):
            monkeypatch.setattr(app.main.log_lines, "write", lambda text, **_: lines.append(text.plain))
            add_output(b"x" * 100_000 + b"\n\x1b[31mred\x1b[0m [/b]\n 10%|\r 90%|\rdone 100%\nepoch 2\nhal")
            await beating(app, pilot, lambda: "epoch 2" in lines)
            assert lines[-3:] == ["red [/b]", "done 100%", "epoch 2"]
            add_output(b"f\n")
            await beating(app, pilot, lambda: "half" in lines)


async def test_a_script_without_values_says_so_and_the_form_is_about_the_next_run(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", [SCRIPT_STARTED])
    app = still_app(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        assert str(app.main.form.border_title) == "Run"
        with engine_alive(run):
            app.open(run)
            await beating(app, pilot, lambda: any("no values yet" in row for row in text(app.main.chart)))
            await beating(app, pilot, lambda: str(app.main.form.border_title) == "New run")
            with open(run / EVENTS, "ab") as log:
                log.write(encode(script_ended(0)) + b"\n")
            await beating(app, pilot, lambda: any("This run has no values." in row for row in text(app.main.chart)))


async def test_the_refusal_of_a_command_from_here_is_shown(tmp_path: Path) -> None:
    earlier = Warned(message="earlier", code=COMMAND_IGNORED)
    run = write_script_run(tmp_path, "resnet-1a2b", [*WINDOWS, earlier])
    with engine_alive(run):
        async with opened(tmp_path, run) as (app, pilot):
            await pilot.press("a")
            await beating(app, pilot, lambda: bool(commands(run)))
            with open(run / EVENTS, "ab") as log:
                log.write(encode(Warned(message="cannot be measured", code=COMMAND_IGNORED)) + b"\n")
            await beating(app, pilot, lambda: len(app._notifications) == 2)
            assert [toast.message for toast in app._notifications] == [
                "asked the script to measure its next 20 steps",
                "cannot be measured",
            ]


async def test_any_family_can_be_drawn_and_grows_while_it_is(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", WINDOWS)
    with engine_alive(run):
        async with opened(tmp_path, run) as (app, pilot):
            chart = app.main.chart
            chart.focus()
            await pilot.press("n")
            await beating(app, pilot, lambda: chart.trace.family == "lr" and len(chart.trace.main) == 4)
            assert "lr" in str(chart.border_title)
            await pilot.press("n")
            await beating(app, pilot, lambda: chart.trace.family == "accuracy" and len(chart.trace.main) == 1)
            assert set(chart.trace.run.series) == {"loss", "val_loss", "val_accuracy"}  # the rest is forgotten
            with open(run / EVENTS, "ab") as log:
                log.write(encode(logged_at([4, 5], 2.0, val_accuracy=[0.75, 1.0])) + b"\n")
            await beating(app, pilot, lambda: len(chart.trace.main) == 3)
            assert [point.value for point in chart.trace.main.points(0, 9)] == [0.5, 0.75, 1.0]
            await pilot.press("n")
            await beating(app, pilot, lambda: chart.trace.family == "loss")
            assert set(chart.trace.run.series) == {"loss", "val_loss"}
            assert text(chart)[0].rstrip().endswith("⠒⠒ train 0.5000")


async def test_a_family_is_picked_by_typing(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", [*WINDOWS, script_ended(4)])
    async with opened(tmp_path, run) as (app, pilot):
        app.main.chart.focus()
        await pilot.press("slash")
        await beating(app, pilot, lambda: isinstance(app.screen, Picker) and app.screen.query(OptionList))
        options = app.screen.query_one(OptionList)
        assert [options.get_option_at_index(place).id for place in range(options.option_count)] == [
            "loss", "lr", "accuracy",
        ]  # fmt: skip
        await pilot.press("a", "c", "c")
        await beating(app, pilot, lambda: options.option_count == 1)
        await pilot.press("enter")
        await beating(
            app, pilot, lambda: app.main.chart.trace.family == "accuracy" and len(app.main.chart.trace.main) == 1
        )


async def test_every_family_has_one_row_next_to_the_scroll_bar(tmp_path: Path) -> None:
    values = {f"layer{number}/weight_norm": [1.0] for number in range(40)}
    run = write_script_run(tmp_path, "resnet-1a2b", [SCRIPT_STARTED, logged(0, 1.0, **values), script_ended(1)])
    async with opened(tmp_path, run) as (app, pilot):
        app.main.chart.focus()
        await pilot.press("slash")
        await beating(app, pilot, lambda: isinstance(app.screen, Picker) and app.screen.query(OptionList))
        options = app.screen.query_one(OptionList)
        await beating(app, pilot, lambda: options.virtual_size.height > 0)
        assert options.option_count == options.virtual_size.height == 40


async def test_an_overlay_is_drawn_in_the_family_of_the_chart(tmp_path: Path) -> None:
    run = write_script_run(tmp_path, "resnet-1a2b", [*WINDOWS, script_ended(4)])
    other = write_script_run(tmp_path, "resnet-3c4d", [SCRIPT_STARTED, logged(0, loss=[1.0] * 9, lr=[0.2] * 9)])
    async with opened(tmp_path, run) as (app, pilot):
        app.runs.toggle_overlay(other)
        await beating(app, pilot, lambda: app.main.chart.overlays[0].main.last == 1.0)
        app.runs.select("lr")
        await beating(app, pilot, lambda: len(app.main.chart.overlays[0].main) == 9)
        assert app.main.chart.overlays[0].main.last == pytest.approx(0.2)


async def test_the_metrics_and_the_load_of_an_engine_are_series_too(tmp_path: Path) -> None:
    run = write_run(tmp_path, "iris-mlp-0001", events_of("finished"))
    async with opened(tmp_path, run) as (app, pilot):
        app.runs.select("accuracy")
        await beating(app, pilot, lambda: len(app.main.chart.trace.main) == 7)
        assert {point.value for point in app.main.chart.trace.main.points(0, 20_000)} == {0.9}


def test_names_match_by_all_words_in_any_order() -> None:
    names = ["loss", "mnli/accuracy", "system/gpu0/percent", "system/gpu1/percent"]
    assert matching(names, "") == names
    assert matching(names, "GPU percent 1") == ["system/gpu1/percent"]
    assert matching(names, "nothing") == []
