"""The result of an experiment on the command line: pictures, figures and verdict, in the width of the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epochtop.engine.runs.reader import Follower, read_record
from epochtop.tui.cells.rows import uncolored
from epochtop.tui.cli.lab.text import report, rows
from epochtop.tui.lab.result_rows import page
from epochtop.tui.state.experiment import ExperimentState
from tests.support.lab_runs import NO_GPU, events_of, write_experiment


def state_of(home: Path, state: str = "finished", devices: tuple[str, ...] = ("cpu",)) -> ExperimentState:
    run = write_experiment(home, "reads-7f3a", events_of(state, devices))
    folded, follower = ExperimentState(read_record(run), run.name), Follower(run)
    for event in follower.read_all():
        folded.apply(event)
    follower.close()
    return folded


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_no_line_is_wider_than_the_terminal(home: Path, state: str, width: int) -> None:
    lines = [uncolored(actual) for actual in rows(state_of(home, state), width, 24)]
    assert max(map(len, lines)) <= width


def test_picture_figures_and_verdict_come_in_this_order(home: Path) -> None:
    lines = [uncolored(actual) for actual in rows(state_of(home), 80, 24)]
    heads = ("Time of the run over", "● plain", "Figures: time", "Verdict", "Why", "Next", "Setting", "Uncertain",
             "Not seen", "Measured")  # fmt: skip
    places = [next(place for place, line in enumerate(lines) if line.startswith(head)) for head in heads]
    assert places == sorted(places)
    assert NO_GPU in " ".join(line.strip() for line in lines)


def test_every_word_of_the_verdict_is_there_however_narrow(home: Path) -> None:
    state = state_of(home, devices=("cpu", "cuda:0"))
    assert state.concluded is not None
    conclusion = state.concluded.verdict
    words = re.sub(r"\s+", " ", " ".join(uncolored(actual) for actual in rows(state, 60, 24)))
    for sentence in (conclusion.finding, *conclusion.evidence, conclusion.next_step, conclusion.uncertainty):
        assert sentence in words.replace(" · ", " ")


def test_figures_of_a_gpu_are_named_apart(home: Path) -> None:
    lines = [uncolored(actual) for actual in rows(state_of(home, devices=("cpu", "cuda:0")), 80, 24)]
    assert any(line.startswith("● cpu plain   × cpu epochtop   + cuda:0 plain") for line in lines)


def test_there_are_colors_for_a_terminal_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(home)
    assert "\x1b" not in "".join(report(state, color=False))
    colored = report(state, color=True)
    assert "\x1b[" in "".join(colored)
    assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in colored] == report(state, color=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(report(state, color=True))


def test_an_experiment_of_another_version_can_still_be_read(home: Path) -> None:
    state = state_of(home)
    other = ExperimentState(state.record, "later-7f3a")
    import msgspec

    other.asked = msgspec.structs.replace(state.asked, name="later")
    other.concluded, other.rows = state.concluded, state.rows
    text = "\n".join(uncolored(actual) for actual in page(other, 80, 24, 0.0))
    assert "Verdict    on cpu a read costs" in text
