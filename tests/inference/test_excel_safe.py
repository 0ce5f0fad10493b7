"""`--excel-safe`: cells of other people that a spreadsheet would execute as formulas."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from epochtop.engine.process import commands
from epochtop.engine.protocol.events import Measured
from epochtop.engine.terminal.spreadsheets import escaped
from epochtop.recording.run import Run
from epochtop.tui.cli import engine
from epochtop.tui.cli.main import run
from tests.support.lab_runs import prepared, write_experiment
from tests.support.trained_runs import houses, trained, write_table

FORMULAS = ("=HYPERLINK(1)", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "--1", "-", "=", "-inf")
HARMLESS = ("", "a=b", "'=1", "-1.5", "+3", "-1e-05", "-.5", " =1", "é", "3-4")


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert escaped(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", [*HARMLESS, -1.5, None])
def test_other_cells_stay(cell: object) -> None:
    assert escaped(cell) == cell


def test_predict_escapes_cells_and_names_on_request_only(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ask_engine", commands.main)  # in this process
    model = trained(home, dataset=f"csv:{houses(tmp_path / 'houses.csv')}", target="price", epochs=3)
    names = ("area", "age", "=NOTE()")
    table = write_table(tmp_path / "new.csv", names, [(50, -3, "=1+1"), (60, 4, "fine")])
    cells = {}
    for option in ((), ("--excel-safe",)):
        assert run(["predict", *option, model.name, str(table), "--output", str(tmp_path / "out.csv")]) == 0
        with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
            cells[option] = [row[:3] for row in csv.reader(file)]
    assert cells[()] == [[*names], ["50", "-3", "=1+1"], ["60", "4", "fine"]]
    assert cells["--excel-safe",] == [["area", "age", "'=NOTE()"], ["50", "-3", "'=1+1"], ["60", "4", "fine"]]


def test_rows_of_an_experiment_are_escaped_on_request_only(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(home, "reads-7f3a", [prepared(), Measured(values={"@name": "=1+1", "ratio": -1.5})])
    for option, expected in (((), "@name,ratio\n=1+1,-1.5\n"), (("--excel-safe",), "'@name,ratio\n'=1+1,-1.5\n")):
        assert run(["export", path.name, *option]) == 0
        assert capsys.readouterr().out == expected


def test_names_of_series_are_escaped_on_request_only(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run("night run") as recording:
        recording.log({"=1+1": 0.5})
    for option, expected in (((), "step,time,=1+1"), (("--excel-safe",), "step,time,'=1+1")):
        assert run(["export", "last", "--series", "=1+1", *option]) == 0
        assert capsys.readouterr().out.splitlines()[0] == expected


def test_other_formats_refuse_the_option(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(home, "reads-7f3a", [prepared()])
    assert run(["export", path.name, "--format", "jsonl", "--excel-safe"]) == 2
    assert "csv only" in capsys.readouterr().err
