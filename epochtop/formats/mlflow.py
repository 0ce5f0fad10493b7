"""MLflow's file store (`mlruns`), one folder per run, and its database (`mlflow.db`), several runs in one file.

Imports the standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from epochtop.formats.decoding import yaml
from epochtop.formats.decoding.growing import modified_time, read_head
from epochtop.formats.decoding.lines import Lines
from epochtop.formats.decoding.sqlite import MAGIC, ROWS, Database
from epochtop.formats.records import NAN, Collector, Configuration, Description, Ended, Record, Restart

META = "meta.yaml"
METRICS = {"key", "value", "timestamp", "run_uuid", "step"}
LAST_ROWS = 1000
"""Rows before the last one of a database that may hold the last values of a run."""
OUTCOMES = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "stopped",
    "3": "finished",
    "4": "failed",
    "5": "stopped",
}
"""Ends by status: names in databases, numbers in files."""


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is a run of a file store."""
    try:
        head = read_head(folder / META, 1 << 16)
    except OSError:
        return False
    return b"run_id:" in head or b"run_uuid:" in head


def recognize(path: Path, head: bytes) -> bool:
    """Whether a file is a database of MLflow."""
    if not head.startswith(MAGIC):
        return False
    try:
        tables = Database(path).tables()
    except OSError:
        return False
    return tables.get("metrics", set()) >= METRICS and "run_uuid" in tables.get("runs", set())


def run_ids(path: Path) -> list[str]:
    """Ids of the runs in a database that are not deleted. Raises OSError."""
    statement = "SELECT run_uuid FROM runs WHERE lifecycle_stage IS NOT 'deleted' ORDER BY start_time"
    return [str(row[0]) for row in Database(path).query(statement)]


class MlflowFolderFollower:
    """Follows one run of a file store: a file per metric with lines `timestamp value step`."""

    def __init__(self, folder: Path, last_bytes: int | None = None) -> None:
        self._folder = folder
        self._last_bytes = last_bytes
        self._metrics: dict[str, Lines] = {}
        self._generations: dict[str, int] = {}
        self._params: dict[str, Any] = {}
        self._meta = 0.0
        self._outcome = ""
        self._collector = Collector()
        self._bad_lines = 0

    @property
    def damaged(self) -> int:
        """Number of lines that were skipped so far."""
        return self._bad_lines + sum(lines.too_long for lines in self._metrics.values())

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        self._read_params()
        self._list_metrics()
        for name, lines in self._metrics.items():
            new = lines.read()
            if lines.generation != self._generations.get(name, 0):
                self._generations[name] = lines.generation
                self._collector.put(Restart(-(1 << 63), name))
            for line in new:
                self._add(name, line)
        records = self._collector.take()
        if not records:
            self._read_meta()
            records = self._collector.take()
        return records

    def modified(self) -> float:
        """Unix time of the last change of a metric."""
        self._list_metrics()
        return modified_time(*(lines.file.path for lines in self._metrics.values())) or modified_time(
            self._folder / META
        )

    def close(self) -> None:
        """Close the files."""
        for lines in self._metrics.values():
            lines.close()

    def _list_metrics(self) -> None:
        for name, path in _files(self._folder / "metrics"):
            if name not in self._metrics:
                lines = self._metrics[name] = Lines(path)
                if self._last_bytes is not None and path.stat().st_size > self._last_bytes:
                    self._add(name, read_head(path, 256).partition(b"\n")[0])
                    lines.start_at(path.stat().st_size - self._last_bytes)

    def _add(self, name: str, line: bytes) -> None:
        try:
            time, value, *rest = line.split()
            step = int(rest[0]) if rest else 0
            self._collector.add(name, step, int(time) / 1000, float(value))
        except (ValueError, OverflowError):
            self._bad_lines += bool(line.strip())

    def _read_params(self) -> None:
        new: dict[str, Any] = {}
        for name, path in _files(self._folder / "params"):
            if name not in self._params:
                try:
                    new[name] = yaml.scalar(read_head(path, 1 << 16).decode("utf-8", "replace"))
                except OSError:
                    continue
        if new:
            self._params.update(new)
            self._collector.put(Configuration(new))

    def _read_meta(self) -> None:
        changed = modified_time(self._folder / META)
        if changed == self._meta:
            return
        self._meta = changed
        try:
            meta = yaml.parse(read_head(self._folder / META, 1 << 16).decode("utf-8", "replace"))
        except OSError:
            return
        self._collector.put(Description(name=str(meta.get("run_name") or "")))
        outcome = OUTCOMES.get(str(meta.get("status")), "")
        if outcome and outcome != self._outcome:
            self._collector.put(Ended(outcome, _seconds(meta.get("end_time"))))
        self._outcome = outcome


class MlflowDatabaseFollower:
    """Follows one run of a database."""

    def __init__(self, path: Path, run: str, last_bytes: int | None = None) -> None:
        self._database = Database(path)
        self._run = run
        self._last_row = -1
        self._changes: object = None
        self._params: dict[str, str] = {}
        self._status = ""
        self._collector = Collector()
        self._shortcut = last_bytes is not None
        """Whether only the last rows are of interest."""
        self.damaged = 0

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        changes = self._database.changes()
        if changes == self._changes or not self._database.path.exists():
            return []
        self._read_params()
        if self._shortcut:
            self._shortcut = False
            self._read_rows(1)
            (newest,) = self._database.query("SELECT MAX(rowid) FROM metrics WHERE run_uuid = ?", self._run)
            self._last_row = max(self._last_row, (newest[0] or 0) - LAST_ROWS)
        rows = self._read_rows(ROWS)
        if rows < ROWS:
            self._changes = changes
            self._read_run()
        return self._collector.take()

    def modified(self) -> float:
        """Unix time of the last change of the database."""
        return self._database.modified()

    def close(self) -> None:
        """Nothing stays open."""

    def _read_rows(self, limit: int) -> int:
        """Add the next values. Returns how many there were."""
        rows = self._database.query(
            "SELECT rowid, key, value, timestamp, step, is_nan FROM metrics "
            "WHERE run_uuid = ? AND rowid > ? ORDER BY rowid LIMIT ?",
            self._run,
            self._last_row,
            limit,
        )
        for row in rows:
            self._add(*row)
        return len(rows)

    def _add(self, row: Any, name: Any, value: Any, timestamp: Any, step: Any, is_nan: Any) -> None:
        self._last_row = row
        try:
            self._collector.add(str(name), int(step), int(timestamp) / 1000, NAN if is_nan else float(value))
        except (TypeError, ValueError, OverflowError):
            self.damaged += 1

    def _read_params(self) -> None:
        rows = self._database.query("SELECT key, value FROM params WHERE run_uuid = ?", self._run)
        new = {str(name): yaml.scalar(str(text)) for name, text in rows if str(name) not in self._params}
        if new:
            self._params.update(new)
            self._collector.put(Configuration(new))

    def _read_run(self) -> None:
        rows = self._database.query("SELECT name, status, end_time FROM runs WHERE run_uuid = ?", self._run)
        for name, status, end in rows[:1]:
            if status != self._status:
                self._status = status
                self._collector.put(Description(name=str(name or "")))
                if status in OUTCOMES:
                    self._collector.put(Ended(OUTCOMES[status], _seconds(end)))


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Files in a folder and below it, with their names joined by `/`."""
    files: list[tuple[str, Path]] = []
    folders = [("", folder, 0)]
    while folders:
        prefix, current, depth = folders.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir() and depth < 8:
                folders.append((f"{prefix}{entry.name}/", Path(entry.path), depth + 1))
            elif entry.is_file():
                files.append((f"{prefix}{entry.name}", Path(entry.path)))
    return files


def _seconds(milliseconds: Any) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, (int, float)) and milliseconds else NAN
