"""MLflow's file store and database, and Trackio's database: read without a trace."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from epochtop.formats import mlflow, trackio
from epochtop.formats.scan import find_logs, log_at
from tests.formats.writers import TIME, Read, add_mlflow_metrics, mlflow_database
from tests.formats.writers import trackio as write_trackio


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time by name."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


# --- MLflow ----------------------------------------------------------------------------------------------------


def test_a_database_of_mlflow(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    mlflow_database(path, [("train/loss", 1 / (step + 1), step) for step in range(50)] + [("bad", math.nan, 3)])
    before = files(tmp_path)
    (log,) = find_logs(path).logs
    assert (log.kind, log.path) == ("mlflow", path / "run1")
    assert log_at(log.path) is not None
    result = Read(log.follow())
    assert result.config == {"lr": 0.1}
    assert result.series["train/loss"] == {step: 1 / (step + 1) for step in range(50)}
    assert math.isnan(result.series["bad"][3])
    assert result.times["train/loss"][7] == TIME + 7
    assert result.end is None
    assert files(tmp_path) == before
    with closing(sqlite3.connect(path)) as database:
        add_mlflow_metrics(database, [("train/loss", 0.125, 50)])
        database.execute("UPDATE runs SET status = 'KILLED', end_time = 1790000100000 WHERE run_uuid = 'run1'")
        database.commit()
    assert result.more().series["train/loss"][50] == 0.125
    assert result.values == 52
    assert result.end is not None
    assert (result.end.outcome, result.end.time) == ("stopped", TIME + 100)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mlruns" / "0" / "run1"
    (folder / "metrics" / "train").mkdir(parents=True)
    (folder / "params").mkdir()
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "predictions.csv").write_text("step,loss\n1,2\n")
    (folder / "meta.yaml").write_text("end_time: null\nrun_id: run1\nrun_name: first\nstatus: 1\n")
    (folder.parent / "meta.yaml").write_text("experiment_id: '0'\nname: Default\n")
    (folder / "params" / "lr").write_text("0.1")
    (folder / "metrics" / "train" / "loss").write_text("1790000000000 1.0 0\n1790000001000 0.5 1\n17900000")
    return folder


def test_a_run_of_a_file_store(run_folder: Path, tmp_path: Path) -> None:
    (log,) = find_logs(tmp_path).logs
    assert (log.kind, log.path, log.name) == ("mlflow", run_folder, "mlruns/0/run1")
    result = Read(log.follow())
    assert result.series == {"train/loss": {0: 1.0, 1: 0.5}}
    assert result.times["train/loss"] == {0: TIME, 1: TIME + 1}
    assert result.config == {"lr": 0.1}
    with open(run_folder / "metrics" / "train" / "loss", "a") as file:
        file.write("02000 nan 2\nnonsense\n1790000003000 0.25 3\n")
    (run_folder / "metrics" / "accuracy").write_text("1790000000000 0.5 0\n")
    (run_folder / "meta.yaml").write_text("end_time: 1790000100000\nrun_id: run1\nrun_name: first\nstatus: 3\n")
    result.more()
    assert list(result.series["train/loss"]) == [0, 1, 2, 3]
    assert result.series["accuracy"] == {0: 0.5}
    assert result.follower.damaged == 1
    assert result.end is not None
    assert (result.end.outcome, result.end.time) == ("finished", TIME + 100)


# --- Trackio ---------------------------------------------------------------------------------------------------


def test_a_database_of_trackio_holds_several_runs(tmp_path: Path) -> None:
    path = tmp_path / "project.db"
    runs = {
        name: [{"loss": scale / (step + 1), "nan": "NaN", "note": "x"} for step in range(20)]
        for name, scale in (("a", 1), ("b", 2))
    }
    write_trackio(path, runs, {"lr": 0.1, "_Created": "now"})
    before = files(tmp_path)
    logs = find_logs(tmp_path).logs
    assert [(log.kind, log.path) for log in logs] == [("trackio", path / "id-a"), ("trackio", path / "id-b")]
    result = Read(logs[1].follow())
    assert result.series["loss"] == {step: 2 / (step + 1) for step in range(20)}
    assert math.isnan(result.series["nan"][0])
    assert result.config == {"lr": 0.1}
    assert files(tmp_path) == before
    write_trackio(path, {"b": [{"loss": 9.0}]}, {})
    assert result.more().series["loss"][0] == 9.0


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An open connection that has just written to a database in WAL mode."""
    write_trackio(tmp_path / "project.db", {"a": [{"loss": 1.0}]}, {})
    with closing(sqlite3.connect(tmp_path / "project.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        add_row(database, 1, 0.5)
        yield database


def add_row(database: sqlite3.Connection, step: int, loss: float) -> None:
    row = ("id-a", "2026-09-21T13:20:00", "a", step, f'{{"loss": {loss}}}')
    database.execute("INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?,?,?,?,?)", row)
    database.commit()


def test_values_in_a_write_ahead_log_are_read_while_its_writer_lives(
    writer: sqlite3.Connection, tmp_path: Path
) -> None:
    result = Read(trackio.TrackioFollower(tmp_path / "project.db", "id-a"))
    assert result.series["loss"] == {0: 1.0, 1: 0.5}
    add_row(writer, 2, 0.25)
    assert result.more().series["loss"] == {0: 1.0, 1: 0.5, 2: 0.25}


def test_no_file_is_created_next_to_a_database_in_wal_mode(writer: sqlite3.Connection, tmp_path: Path) -> None:
    writer.close()
    before = files(tmp_path)
    assert list(before) == ["project.db"]
    assert Read(trackio.TrackioFollower(tmp_path / "project.db", "id-a")).series["loss"] == {0: 1.0, 1: 0.5}
    assert files(tmp_path) == before


def test_a_writer_is_never_locked_out(writer: sqlite3.Connection, tmp_path: Path) -> None:
    follower = trackio.TrackioFollower(tmp_path / "project.db", "id-a")
    follower.read()
    writer.execute("PRAGMA busy_timeout = 0")
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE metrics SET step = step + 1")
    writer.commit()


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"\0" * 100, b"SQLite format 3\0"])
def test_a_damaged_database_is_not_recognized(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    assert not mlflow.recognize(path, content)
    assert not trackio.recognize(path, content)


def test_a_database_that_breaks_later_raises_an_os_error_only(tmp_path: Path) -> None:
    path = tmp_path / "project.db"
    write_trackio(path, {"a": [{"loss": 1.0}] * 2000}, {})
    follower = trackio.TrackioFollower(path, "id-a")
    content = path.read_bytes()
    path.write_bytes(content[:5000] + b"\xff" * (len(content) - 5000))
    with pytest.raises(OSError, match=r"project\.db"):
        follower.read()
