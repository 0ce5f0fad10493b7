"""`open`, `runs --json` and `export --series` with logs of other tools."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from epochtop.tui.cli.main import run
from tests.formats.test_csvlog import LIGHTNING
from tests.formats.test_scan import put
from tests.formats.writers import TIME, losses, single, tensorboard
from tests.support.runs import losses_like_iris, windows, write_run


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    put(tmp_path / "logs" / "tb" / "events.out.tfevents.1", tensorboard([*losses(5), *losses(2, "val/loss")]))
    put(tmp_path / "logs" / "version_0" / "metrics.csv", LIGHTNING)
    put(tmp_path / "logs" / "version_0" / "hparams.yaml", "lr: 0.1\n")
    return tmp_path / "logs"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Standard output of a command that succeeds."""
    assert run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def listing(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """`runs --json` by name."""
    return {entry["name"]: entry for entry in json.loads(printed(capsys, "runs", "--json", *arguments))}


def test_opened_runs_are_listed_with_series_and_configuration(
    home: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(home, "iris-mlp-a4f0", windows(losses_like_iris(1_000)))
    assert "version_0" in printed(capsys, "open", logs)
    runs = listing(capsys)
    assert runs.keys() == {"", "tb", "version_0"}
    board, table = runs["tb"], runs["version_0"]
    assert board["id"] == board["path"] == str(logs / "tb")
    assert board["format"] == "tensorboard"
    assert board["series"] == {
        "train/loss": {
            "count": 5,
            "first_step": 0,
            "last_step": 4,
            "last": single(1 / 5),
            "minimum": single(1 / 5),
            "maximum": 1.0,
        },
        "val/loss": {"count": 2, "first_step": 0, "last_step": 1, "last": 0.5, "minimum": 0.5, "maximum": 1.0},
    }
    assert board["main_series"] == "train/loss"
    assert (table["config"], table["series"]["val_loss"]["count"]) == ({"lr": 0.1}, 1)
    own = runs[""]
    assert own["series"]["train/loss"]["count"] == 1_000
    assert own["config"]["model"] == "mlp"
    printed(capsys, "open", "--forget", logs)
    assert listing(capsys).keys() == {""}


def test_paths_without_a_log_are_reported_and_the_others_are_opened(
    home: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (logs / "empty").mkdir()
    assert run(["open", str(logs / "missing"), str(logs / "tb"), str(logs / "empty")]) == 0
    printed_texts = capsys.readouterr()
    assert "tb" in printed_texts.out
    missing, empty = printed_texts.err.splitlines()
    assert missing == f"epochtop: {logs / 'missing'} cannot be read: No such file or directory"
    assert empty.startswith(f"epochtop: there is no log in {logs / 'empty'}")
    assert listing(capsys).keys() == {"tb"}


def test_runs_at_a_path_are_listed_without_opening_it(
    home: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listing(capsys, logs).keys() == {"tb", "version_0"}
    assert listing(capsys) == {}


def test_series_are_exported_with_step_and_time(home: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "export", logs / "tb", "--series", "train/loss", "val/loss")
    head, *rows = csv.reader(text.splitlines())
    assert head == ["step", "time", "train/loss", "val/loss"]
    assert [[float(cell) if cell else None for cell in row] for row in rows] == [
        [step, TIME + step, single(1 / (step + 1)), single(1 / (step + 1)) if step < 2 else None] for step in range(5)
    ]
    lines = printed(capsys, "export", logs / "version_0", "--series", "val_loss", "--format", "jsonl").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "time": None, "val_loss": 0.75}]


def test_series_of_a_run_directory_are_exported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = losses_like_iris(100)
    write_run(home, "iris-mlp-a4f0", windows(values))
    head, *rows = csv.reader(printed(capsys, "export", "last", "--series", "train/loss").splitlines())
    assert head == ["step", "time", "train/loss"]
    assert [float(row[2]) for row in rows] == [single(value) for value in values]


def test_an_import_makes_runs_that_need_the_logs_no_more(
    home: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "imported 2 runs" in printed(capsys, "open", "--import", logs)
    (logs / "tb" / "events.out.tfevents.1").unlink()
    assert len(printed(capsys, "export", "tb", "--series", "train/loss").splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["open"], "name a file or a folder"),
        (["open", "nothing"], "cannot be read: No such file or directory"),
        (["open", "empty"], "there is no log in"),
        (["open", "logs", "--import", "--forget"], "exclude each other"),
        (["export", "logs/tb", "--series", "los"], "has no series 'los'; it has train/loss, val/loss"),
        (["export", "logs/tb", "--series", "train/loss", "--format", "onnx"], "csv or jsonl"),
        (["export", "logs/tb"], "name the series"),
        (["runs", "nothing"], "there is no file or folder"),
    ],
)
def test_errors_name_what_to_do(
    arguments: list[str],
    message: str,
    home: Path,
    logs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (logs.parent / "empty").mkdir()
    monkeypatch.chdir(logs.parent)
    assert run(arguments) == 2
    assert message in capsys.readouterr().err
