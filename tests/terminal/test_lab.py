"""The lab in a real pseudo-terminal, with a real engine that measures: from the key to the verdict, and what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import Concluded, Measured
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.engine.runs.writer import send
from tests.support.engines import events
from tests.support.lab_runs import events_of, write_experiment
from tests.support.ui.apps import Open, ended
from tests.support.ui.terminals import CTRL_Q, CTRL_S, CTRL_X, ESCAPE

QUICK_ROWS = 3


@pytest.mark.xdist_group("lab")
def test_an_experiment_is_measured_left_alone_and_found_again(app: Open, home: Path) -> None:
    first = app(size=(80, 24))
    first.press("4")
    first.wait_for("The cost of reading the loss")
    first.press("q")
    first.wait_for("ten seconds")
    first.press(CTRL_S)
    first.wait_for("● measuring")
    (run,) = run_paths(lab_home(home))
    first.wait_for(run.name)
    record = read_record(run)
    assert record.experiment is not None
    assert record.experiment.quick
    first.press(CTRL_Q)
    first.wait()
    ended(first)

    second = app("attach", run.name, size=(120, 40))
    second.wait_for("Verdict", "finished ✓", run.name)
    last = events(run)[-1]
    assert isinstance(last, Concluded)
    assert last.outcome == "finished"
    second.press(ESCAPE, ESCAPE)
    second.wait_for("No runs yet")


@pytest.mark.xdist_group("lab")
def test_a_stopped_experiment_keeps_its_rows_and_its_verdict(app: Open, home: Path) -> None:
    terminal = app(size=(80, 24))
    terminal.press("4")
    terminal.wait_for("The cost of reading the loss")
    terminal.press(CTRL_S)
    terminal.wait_for("● plain")  # something is drawn
    terminal.press(CTRL_X)
    terminal.wait_for("stopped ■")
    (run,) = run_paths(lab_home(home))
    recorded = events(run)
    assert isinstance(recorded[-1], Concluded)
    assert recorded[-1].outcome == "stopped"
    assert sum(isinstance(event, Measured) for event in recorded) >= QUICK_ROWS


def test_one_that_is_over_is_attached_to(app: Open, home: Path) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    terminal = app("attach", "reads", size=(80, 24))
    terminal.wait_for("Verdict    on cpu a read costs")
    terminal.press("g")
    terminal.wait_for("Why a GPU can be slower than the CPU")
    terminal.press(ESCAPE)
    terminal.wait_for("Verdict    on cpu a read costs")


def test_x_trains_with_the_setting_and_says_what_it_gained(app: Open, home: Path) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"), epochs=2_000, threads=1, device="cpu")
    terminal = app("attach", "reads", size=(120, 40))
    terminal.wait_for("Verdict    on cpu a read costs")
    terminal.press("x")
    terminal.wait_for("setting of reads-7f3a")
    terminal.wait_for("evaluations")  # of the sentence on what was gained, the word that wraps nowhere
    terminal.wait_for("finished: 2,000 steps")
    (run,) = run_paths(home)
    assert read_record(run).spec.executor == "graph"


@pytest.fixture(autouse=True)
def _none_goes_on(home: Path):  # type: ignore[no-untyped-def]
    """Nothing measures beside the next test."""
    yield
    for run in run_paths(lab_home(home)):
        if is_alive(run):
            send(run, Stop())
