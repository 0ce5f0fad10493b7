"""Databases of MLflow and Trackio on another machine: their rows arrive, and readers of this machine see the same runs."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.runs.remote.logs import MirroredLogs
from epochtop.formats.scan import find_logs
from epochtop.remote import databases, opened
from epochtop.remote.frames import ProtocolError
from epochtop.remote.opened import OpenedFolders
from tests.formats.writers import Read, add_mlflow_metrics, mlflow_database, trackio


class Connection:
    """An agent's view of opened folders, and the mirror that its frames fill."""

    def __init__(self, there: Path, mirror: Path) -> None:
        self.notices: list[str] = []
        self._there = there
        self.logs = MirroredLogs(mirror, self._connect, self.notices.append)
        self._folders: OpenedFolders
        self.folder = mirror / "opened" / "0" / "logs"
        self.logs.paths()

    def _connect(self, request: dict[str, Any]) -> None:
        self._folders = OpenedFolders(self._there, json.loads(json.dumps(request["known"])))

    def transfer(self) -> list[tuple[dict[str, Any], bytes]]:
        """Take what there is. Returns the frames that came."""
        frames: list[tuple[dict[str, Any], bytes]] = []
        while new := list(self._folders.next_frames()):
            frames += new
            for header, body in new:
                self.logs.take(json.loads(json.dumps(header)), body)
        return frames

    def read(self) -> dict[str, Read]:
        """What readers of this machine see, by name."""
        return read(self.folder)


def read(folder: Path) -> dict[str, Read]:
    return {log.path.relative_to(folder).as_posix(): Read(log.follow()) for log in find_logs(folder).logs}


def contents(reads: dict[str, Read]) -> dict[str, str]:
    """What was read, as text, in which NaN equals NaN."""
    return {name: repr((read.series, read.times, read.config, read.end)) for name, read in reads.items()}


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a database of each kind, and others, which the home folder `there` has opened."""
    monkeypatch.setattr(databases, "LOOK_S", 0.0)
    monkeypatch.setattr(databases, "SHARE", 0)
    monkeypatch.setattr(opened, "SCAN_S", 0.0)
    monkeypatch.setattr(opened, "SHARE", 0)
    folder = tmp_path / "logs"
    folder.mkdir()
    values = [("loss", 1.0, 0), ("loss", math.inf, 1), ("acc", math.nan, 1)]
    mlflow_database(folder / "mlflow.db", values)
    trackio(folder / "project.db", {"a": [{"loss": step} for step in range(5)], "b": [{"loss": 7}]}, {"lr": 0.1})
    with closing(sqlite3.connect(folder / "other.db")) as database:
        database.execute("CREATE TABLE metrics (secret)")
    (folder / "thumbs.db").write_bytes(b"no database")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "opened.json").write_text(json.dumps({"paths": [str(folder)]}))
    return folder


@pytest.fixture
def connection(logs: Path, tmp_path: Path) -> Connection:
    (tmp_path / "mirror").mkdir()
    return Connection(tmp_path / "there", tmp_path / "mirror")


def test_readers_see_the_same_runs(connection: Connection, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "ROWS", 2)
    monkeypatch.setattr(databases, "PART_BYTES", 100)
    assert len(connection.transfer()) > 6
    assert list(connection.read()) == ["mlflow.db/run1", "project.db/id-a", "project.db/id-b"]
    assert contents(connection.read()) == contents(read(logs))
    assert connection.transfer() == []
    mirrored = connection.folder
    assert sorted(path.name for path in mirrored.iterdir()) == ["mlflow.db", "project.db"]
    difference_s = (mirrored / "mlflow.db").stat().st_mtime - (logs / "mlflow.db").stat().st_mtime
    assert abs(difference_s) < 2e-3


def test_new_and_changed_rows_follow_across_a_drop(connection: Connection, logs: Path) -> None:
    connection.transfer()
    followed = connection.read()["mlflow.db/run1"]
    for step, status in ((2, "RUNNING"), (3, "FINISHED")):
        with closing(sqlite3.connect(logs / "mlflow.db")) as database:
            database.execute("UPDATE runs SET status = ?", (status,))
            add_mlflow_metrics(database, [("loss", 0.5, step)])
        rows = [json.loads(body) for header, body in connection.transfer() if header["table"] == "metrics"]
        assert [len(part) for part in rows] == [1]
        assert followed.more().series["loss"][step] == 0.5
        connection.logs.ask_again()
    assert contents(connection.read()) == contents(read(logs))
    assert followed.end is not None
    assert followed.end.outcome == "finished"


def test_a_database_that_was_replaced_is_read_from_its_beginning(connection: Connection, logs: Path) -> None:
    connection.transfer()
    new = logs / "new"
    trackio(new, {"c": [{"loss": 3}]}, {})
    new.replace(logs / "project.db")
    connection.transfer()
    assert contents(connection.read()) == contents(read(logs))


def test_the_viewer_learns_what_is_left_out(
    connection: Connection, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "LARGEST_LOG", 1 << 20)
    for name in ("large.db", "events.out.tfevents.1.box", "rows.csv"):
        with open(logs / name, "wb") as file:
            os.truncate(file.fileno(), 5 << 20)
    expected = [
        f"logs/{name} is not shown: it has more than 1 MiB" for name in ("events.out.tfevents.1.box", "large.db")
    ]
    for _ in range(2):
        connection.transfer()
        connection.logs.ask_again()
        assert connection.notices == expected


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({"table": "sqlite_master"}, b"[]"),
        ({"columns": ["key", "value) VALUES (1); --"]}, b"[]"),
        ({}, b'[[1, "loss"]]'),
        ({}, b'[["1", "loss", 1.0]]'),
        ({}, b'[[1, "loss", {"a": 1}]]'),
        ({}, b'[[9223372036854775808, "loss", 1.0]]'),
        ({}, b"[["),
    ],
)
def test_rows_that_no_log_has_are_refused(tmp_path: Path, change: dict[str, Any], body: bytes) -> None:
    header = {"type": "rows", "name": "0/a.db", "table": "metrics", "columns": ["key", "value"], "fresh": False}
    header |= {"offset": 1, "identity": 1, "modified": 0.0}
    logs = MirroredLogs(tmp_path, lambda _: None)
    logs.take(header, b'[[1, "loss", 1.0]]')
    with pytest.raises(ProtocolError):
        logs.take(header | change, body)
