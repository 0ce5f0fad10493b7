"""What lies over the screen while a run goes on: the last evaluation in full, and the decision boundary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from textual.pilot import Pilot

from epochtop.engine.job import decision_boundary, job, plan
from epochtop.engine.job.workload import load_workload
from epochtop.engine.protocol.events import Evaluated, Mapped
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import run_paths
from epochtop.tui.screens.boundary import BoundaryScreen, picture
from epochtop.tui.screens.confusion import ConfusionScreen
from tests.support.engines import Engine, events, train_here
from tests.support.ui.screens import furnished, show_run, still_app

SHORT = {"device": "cpu", "threads": 1, "epochs": 300, "eval_every": 0.0, "optimizer": "adam"}


def moons(home: Path, **fields: object) -> Path:
    """A short run on two features."""
    return train_here(RunSpec(**({"dataset": "moons", "hidden": (16,)} | SHORT | fields)), home)  # type: ignore[arg-type]


async def opened(pilot: Pilot[int], home: Path) -> None:
    """Show the newest run to its end."""
    await furnished(pilot)
    await show_run(pilot, run_paths(home)[0], 1)
    await pilot.pause()


async def over_the_screen(pilot: Pilot[int]) -> None:
    """Wait until something is."""
    while len(pilot.app.screen_stack) < 2:
        await pilot.pause(0.05)


async def test_v_shows_the_last_evaluation_and_escape_closes_it(engine: Engine, home: Path) -> None:
    run = engine.train(RunSpec(**({"dataset": "moons", "hidden": (16,)} | SHORT)), home)  # type: ignore[arg-type]
    engine.wait()
    app = still_app(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, home)
        await pilot.press("v")
        await over_the_screen(pilot)
        assert isinstance(app.screen, ConfusionScreen)
        last = [event for event in events(run) if isinstance(event, Evaluated)][-1]
        assert last.confusion is not None
        assert sum(map(sum, last.confusion)) == 200
        assert last.metrics["accuracy"] == pytest.approx(np.trace(last.confusion) / 200)
        await pilot.press("escape")
        while len(app.screen_stack) > 1:
            await pilot.pause(0.05)
        assert app.screen is app.main


async def test_b_shows_the_boundary_of_two_features_and_is_hidden_for_other_jobs(home: Path) -> None:
    moons(home)
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        assert "b" not in app.screen.active_bindings
        await opened(pilot, home)
        assert "b" in app.screen.active_bindings
        await pilot.press("b")
        await over_the_screen(pilot)
        assert isinstance(app.screen, BoundaryScreen)
    train_here(RunSpec(**SHORT), home)  # type: ignore[arg-type]
    other = still_app(home)
    async with other.run_test(size=(120, 40)) as pilot:
        await opened(pilot, home)
        assert "b" not in other.screen.active_bindings


@pytest.mark.parametrize("dataset", ["moons", "blobs"])
def test_the_map_is_what_the_model_answers_there(dataset: str) -> None:
    spec = RunSpec(**({"dataset": dataset, "hidden": (8,)} | SHORT))  # type: ignore[arg-type]
    workload = load_workload(spec)
    training = job.build(spec, workload, plan.describe(spec, workload))
    for _ in range(50):
        training.step()
    assert training.boundary is not None
    answer = training.boundary.enqueue(training.model)
    mapped = training.boundary.mapped(50, answer, workload.classes)
    cells = np.frombuffer(mapped.cells, dtype=np.uint8).reshape(mapped.rows, mapped.columns)
    for row in (0, 17, mapped.rows - 1):  # the top row has the greatest second feature
        for column in (0, 30, mapped.columns - 1):
            x = mapped.low[0] + (mapped.high[0] - mapped.low[0]) * column / (mapped.columns - 1)
            y = mapped.high[1] - (mapped.high[1] - mapped.low[1]) * row / (mapped.rows - 1)
            with torch.no_grad():
                expected = int(training.model(torch.tensor([[x, y]])).argmax())
            assert cells[row, column] == expected
    assert len(mapped.points) <= decision_boundary.MAX_POINTS
    assert {label for *_, label in mapped.points} == set(range(len(workload.classes)))


def test_a_map_is_drawn_with_the_first_row_on_top_and_dots_in_their_places() -> None:
    shown = Mapped(
        step=1,
        columns=3,
        rows=4,
        low=(0.0, 0.0),
        high=(1.0, 1.0),
        cells=bytes([0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1]),
        classes=("a", "b"),
        points=((0.0, 1.0, 0), (1.0, 0.0, 1)),
    )
    assert picture(shown).plain == "●▀▀\n▀▀●"


def test_jobs_with_more_features_have_no_map() -> None:
    spec = RunSpec(**SHORT)  # type: ignore[arg-type]
    workload = load_workload(spec)
    assert decision_boundary.boundary_of(workload, torch.device("cpu")) is None
