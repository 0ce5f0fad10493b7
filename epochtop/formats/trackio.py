"""Trackio's databases: one file per project, several runs in it. Imports the standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from epochtop.formats.decoding.sqlite import MAGIC, ROWS, Database
from epochtop.formats.records import NAN, Collector, Configuration, Description, Record, flatten, number, unix_time

LAST_ROWS = 1000
"""Rows before the last one of a database that may hold the last values of a run."""
COLUMNS = {"timestamp", "run_name", "step", "metrics"}


def recognize(path: Path, head: bytes) -> bool:
    """Whether a file is a database with Trackio's table of metrics."""
    if not head.startswith(MAGIC):
        return False
    try:
        return Database(path).tables().get("metrics", set()) >= COLUMNS
    except OSError:
        return False


def run_ids(path: Path) -> list[str]:
    """Ids of the runs in a database, or their names in databases of older versions. Raises OSError."""
    database = Database(path)
    key = _key(database)
    rows = database.query(f"SELECT {key} FROM metrics GROUP BY {key} ORDER BY MIN(id)")  # noqa: S608 - see _key
    return [str(row[0]) for row in rows]


def _key(database: Database) -> str:
    """The column that identifies a run: one of two names of ours, so a query may contain it."""
    return "run_id" if "run_id" in database.tables().get("metrics", set()) else "run_name"


class TrackioFollower:
    """Follows one run of a database."""

    def __init__(self, path: Path, run: str, last_bytes: int | None = None) -> None:
        self._database = Database(path)
        self._run = run
        self._key = ""
        self._last_id = -1
        self._changes: object = None
        self._name = ""
        self._has_config = False
        self._collector = Collector()
        self._shortcut = last_bytes is not None
        """Whether only the last rows are of interest."""
        self.damaged = 0

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        changes = self._database.changes()
        if changes == self._changes or not self._database.path.exists():
            return []
        self._key = self._key or _key(self._database)
        if not self._has_config:
            self._describe()
        if self._shortcut:
            self._shortcut = False
            self._read_rows(1)
            query = f"SELECT MAX(id) FROM metrics WHERE {self._key} = ?"  # noqa: S608 - see _key
            (newest,) = self._database.query(query, self._run)
            self._last_id = max(self._last_id, (newest[0] or 0) - LAST_ROWS)
        if self._read_rows(ROWS) < ROWS:
            self._changes = changes
        return self._collector.take()

    def modified(self) -> float:
        """Unix time of the last change of the database."""
        return self._database.modified()

    def close(self) -> None:
        """Nothing stays open."""

    def _describe(self) -> None:
        if not self._name:
            query = f"SELECT run_name FROM metrics WHERE {self._key} = ? LIMIT 1"  # noqa: S608 - see _key
            names = self._database.query(query, self._run)
            self._name = str(names[0][0]) if names else self._run
            self._collector.put(Description(name=self._name, project=self._database.path.stem))
        if "configs" not in self._database.tables():
            return
        query = f"SELECT config FROM configs WHERE {self._key} = ?"  # noqa: S608 - see _key
        rows = self._database.query(query, self._run)
        for (source,) in rows[:1]:
            self._has_config = True
            config = _object(source)
            if config:
                own = {key: value for key, value in config.items() if not key.startswith("_")}
                self._collector.put(Configuration(flatten(own)))

    def _read_rows(self, limit: int) -> int:
        """Add the next values. Returns how many rows there were."""
        query = (
            f"SELECT id, timestamp, step, metrics FROM metrics WHERE {self._key} = ? "  # noqa: S608 - see _key
            "AND id > ? ORDER BY id LIMIT ?"
        )
        rows = self._database.query(query, self._run, self._last_id, limit)
        for row in rows:
            self._add(*row)
        return len(rows)

    def _add(self, row_id: Any, timestamp: Any, step: Any, source: Any) -> None:
        self._last_id = row_id if isinstance(row_id, int) else self._last_id
        values = _object(source)
        if values is None or not isinstance(step, int):
            self.damaged += 1
            return
        time = _time(timestamp)
        for name, value in flatten(values).items():
            amount = number(value)
            if amount is not None:
                self._collector.add(name, step, time, amount)


def _time(timestamp: Any) -> float:
    """Unix time of a timestamp; one without a time zone is in UTC, as Trackio writes it."""
    if isinstance(timestamp, str) and "+" not in timestamp and not timestamp.endswith("Z"):
        timestamp += "+00:00"
    return unix_time(timestamp) if isinstance(timestamp, (str, float, int)) else NAN


def _object(source: Any) -> dict[str, Any] | None:
    """An object in JSON, stored as text or as bytes; None for anything else."""
    try:
        parsed = json.loads(source) if isinstance(source, (str, bytes)) else None
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
