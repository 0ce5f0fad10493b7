"""What is kept of experiments: listed, exported and found by id, from files alone."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.paths import EVENTS, lab_home
from epochtop.tui.cli.main import run
from epochtop.tui.lab.saved_results import ResultIndex, look
from tests.support.lab_runs import CREATED, events_of, rows_of_reads, write_experiment
from tests.support.runs import engine_alive, write_run
from tests.support.runs import events_of as run_events


@pytest.mark.parametrize(
    ("state", "finding"),
    [
        ("finished", "on cpu a read costs 19"),
        ("stopped", "on cpu"),
        ("failed", "out of memory on the GPU"),
        ("died", "output.log"),
    ],
)
def test_how_it_ended_and_what_was_found(home: Path, state: str, finding: str) -> None:
    kept = look(write_experiment(home, "reads-7f3a", events_of(state), quick=True))
    assert kept is not None
    assert (kept.id, kept.experiment, kept.state, kept.created, kept.quick) == (
        "reads-7f3a",
        "reads",
        state,
        CREATED,
        True,
    )
    assert finding in kept.finding


def test_a_live_experiment_is_running(home: Path) -> None:
    run = write_experiment(home, "reads-7f3a", events_of("running"))
    with engine_alive(run):
        kept = look(run)
    assert kept is not None
    assert kept.state == "running"


def test_a_log_that_ends_in_the_middle_of_a_line_is_read_to_the_line_before(home: Path) -> None:
    run = write_experiment(home, "reads-7f3a", events_of("finished"))
    with open(run / EVENTS, "ab") as log:
        log.write(b'{"type":"Measu')
    kept = look(run)
    assert kept is not None
    assert kept.state == "finished"


def test_a_training_run_is_not_an_experiment(home: Path) -> None:
    assert look(write_run(home, "iris-mlp-7f3a", run_events("finished"))) is None


def test_the_newest_comes_first_and_what_is_not_readable_is_left_out(home: Path) -> None:
    for age_s, name in ((600, "reads-0001"), (60, "reads-0002"), (0, "reads-0003")):
        made = write_experiment(home, name, events_of("finished"), age_s=age_s)
        os.utime(made / "lock", (CREATED - age_s, CREATED - age_s))
    (lab_home(home) / "reads-0002" / "run.json").write_text("{")
    keeping = ResultIndex(home)
    assert [kept.id for kept in keeping.list()] == ["reads-0003", "reads-0001"]
    assert [kept.id for kept in keeping.list()] == ["reads-0003", "reads-0001"]


def test_experiments_are_not_runs(home: Path) -> None:
    """`last` stays the last run that trained, and the list of runs has no experiment in it."""
    training = write_run(home, "iris-mlp-7f3a", run_events("finished"))
    write_experiment(home, "reads-7f3a", events_of("finished"))
    assert index.run_paths(home) == [training]
    assert index.find_any(home, "last") == training


def test_an_experiment_is_found_by_its_id_or_its_beginning(home: Path) -> None:
    first = write_experiment(home, "reads-7f3a", events_of("finished"))
    second = write_experiment(home, "reads-11c0", events_of("finished"))
    assert index.find_any(home, "reads-7f3a") == first
    assert index.find_any(home, "reads-1") == second
    write_run(home, "iris-mlp-7f3a", run_events("finished"))
    write_run(home, "iris-mlp-90ee", run_events("finished"))
    with pytest.raises(Invalid, match="'iris' matches 2 runs"):
        index.find_any(home, "iris")
    with pytest.raises(Invalid, match="'reads' matches 2 experiments"):
        index.find_any(home, "reads")
    with pytest.raises(Invalid, match="no run 'nothing'"):
        index.find_any(home, "nothing")
    with pytest.raises(Invalid, match="no run ''"):
        index.find_any(home, "")


def test_the_command_line_lists_what_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "--results"]) == 0
    assert "no results in" in capsys.readouterr().out
    write_experiment(home, "reads-7f3a", events_of("finished"))
    assert run(["lab", "--results"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["reads-7f3a", "finished"]
    assert "on cpu a read costs" in line
    assert run(["lab", "--results", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["experiment"], listed["state"]) == ("reads-7f3a", "reads", "finished")


def test_the_rows_of_an_experiment_are_exported(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    assert run(["export", "reads-7f3a", "--format", "jsonl"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows_of_reads()
    path = tmp_path / "rows.csv"
    assert run(["export", "reads-7f3a", "--format", "csv", "--output", str(path)]) == 0
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [row["kind"] for row in rows_of_reads()]
    assert [float(row["seconds"]) for row in rows if row["seconds"]] == [
        row["seconds"] for row in rows_of_reads() if "seconds" in row
    ]


def test_an_experiment_has_no_weights_to_export(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(home, "reads-7f3a", events_of("finished"))
    assert run(["export", "reads-7f3a", "--format", "onnx"]) == 2
    assert "use csv or jsonl" in capsys.readouterr().err


def test_stopping_one_that_has_ended_says_how(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(home, "reads-7f3a", events_of("stopped"))
    assert run(["stop", "reads-7f3a"]) == 0
    assert capsys.readouterr().out == "reads-7f3a: stopped\n"
