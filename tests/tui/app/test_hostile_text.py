"""The whole app on runs and results whose every text is hostile: nothing crashes, nothing reaches the terminal."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import AnyEvent, Concluded, Evaluated, Failed, Losses, Mapped, Measured, Noted
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.requests import Refused
from epochtop.engine.runs.paths import OUTPUT
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.client.messages import EngineProgress, RunRefused, StandbyDied
from tests.support.lab_runs import prepared, write_experiment
from tests.support.runs import CREATED, started, write_run
from tests.support.ui.hostile import ESCAPES, unsafe_characters
from tests.support.ui.lab_screens import in_the_lab, show_result, text_of
from tests.support.ui.screens import furnished, list_runs, show_run, still_app

SIZE = (200, 60)
STEPS = 10
MARKED, ESCAPED = "[/INST] d[k=='x'] [rank0]: boom", " ".join(ESCAPES)
"""All kinds at once, because every screen takes a while; tests/tui/cells/test_plain.py tries them one by one."""


def a_hostile_run(home: Path, text: str, folder: str, *, ended: bool = True) -> Path:
    """A run in which every text is `text`."""
    classes = (text, f"{text}2", f"{text}3")
    begin = started(STEPS)
    events: list[AnyEvent] = [
        type(begin)(
            **{name: getattr(begin, name) for name in begin.__struct_fields__}
            | {"device_name": text, "torch_version": text, "notes": (text,), "classes": classes, "metric": text}
        ),
        Losses(first_step=0, seconds=0.1, values=array("f", [0.5] * STEPS).tobytes(), reads=1, waited=0.0),
        Evaluated(
            step=5, seconds=0.1, loss=0.5, metric=0.5, metrics={text: 0.5, f"{text}2": None},
            confusion=((1, 2, 3), (4, 5, 6), (7, 8, 9)),
        ),
        Mapped(
            step=5, columns=4, rows=4, low=(0.0, 0.0), high=(1.0, 1.0), cells=bytes(16), classes=classes,
            points=((0.5, 0.5, 1),),
        ),
    ]  # fmt: skip
    if ended:
        events.append(Failed(time=CREATED + 3, step=STEPS, message=text, advice=text, traceback=f"Traceback\n{text}"))
    run = write_run(home, folder, events, name="night run", task=f"{text}.py:make", dataset=f"csv:{text}")
    (run / OUTPUT).write_text(f"{text}\n{text}", encoding="utf-8")
    return run


def check(app: EpochtopApp) -> str:
    """The characters on the screen, none of them unsafe, one per cell."""
    shown = text_of(app)
    assert unsafe_characters(shown) == set()
    return shown


@pytest.mark.parametrize("text", [MARKED, ESCAPED], ids=["markup", "escapes"])
async def test_every_screen_of_a_failed_run_shows_a_hostile_text(text: str, home: Path) -> None:
    run = a_hostile_run(home, text, "iris-mlp-7f3a")
    app = still_app(home)
    async with app.run_test(size=SIZE) as pilot:
        await furnished(pilot)
        await show_run(pilot, run, STEPS)
        shown = [check(app)]
        for keys in (
            ("5",),
            ("2", "f"),
            ("n",),
            ("escape", "v"),
            ("escape", "b"),
            ("escape", "ctrl+p"),
            ("escape", "3", "3"),
        ):
            await pilot.press(*keys)
            await pilot.pause()
            app.beat()
            shown.append(check(app))
        if text == MARKED:
            assert all(text in page for page in (shown[0], shown[1], shown[4], shown[5]))  # log, metrics, boundary


@pytest.mark.parametrize("text", [MARKED, ESCAPED], ids=["markup", "escapes"])
async def test_questions_and_notes_about_a_hostile_run_are_plain(text: str, home: Path) -> None:
    folder = f"iris-{text.replace('/', '').replace(chr(0), '')[:60]}"
    run, other = a_hostile_run(home, text, folder, ended=False), a_hostile_run(home, text, "iris-mlp-11c0")
    app = still_app(home)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await furnished(pilot)
        app.open(run)
        await list_runs(pilot)
        app.runs.toggle_overlay(other)
        app.runs.toggle_overlay(run)
        app.requests.load_settings(run)
        app.post_message(StandbyDied(text, starting=True))
        app.post_message(EngineProgress(text))
        app.post_message(RunRefused(Refused(field="", message=text), starting=True))
        app.post_message(RunRefused(Refused(field="task", message=text), starting=True))
        app.notify(text, title=text)
        await pilot.pause()
        app.beat()
        check(app)
        for keys in (("2", "d"), ("escape",), ("r",), ("escape",), ("ctrl+q",), ("escape",)):
            await pilot.press(*keys)
            await pilot.pause()
            check(app)


@pytest.mark.parametrize("text", [MARKED, ESCAPED], ids=["markup", "escapes"])
async def test_the_lab_shows_a_hostile_result(text: str, home: Path) -> None:
    end = Concluded(
        time=CREATED + 51, seconds=41.2, outcome="finished",
        verdict=Verdict(finding=text, evidence=(text,), next_step=text, uncertainty=text), cannot_see=(text,),
    )  # fmt: skip
    failed = Failed(time=CREATED + 12, step=0, message=text, advice=text, traceback=text)
    rows = [Measured(values={"kind": "run", "device": text, "loop": text, "every": 1, "seconds": 1.0, "steps": 10})]
    results = [
        write_experiment(home, "reads-7f3a", [prepared((text,)), Noted(message=text), *rows, end]),
        write_experiment(home, "reads-11c0", [prepared((text,)), failed], age_s=60),
    ]
    app = still_app(home)
    async with app.run_test(size=SIZE) as pilot:
        await in_the_lab(pilot)
        for result in results:
            await show_result(pilot, result)
            shown = check(app)
            if text == MARKED:
                assert text in shown
        await pilot.press("a")
        await pilot.pause()
        check(app)
