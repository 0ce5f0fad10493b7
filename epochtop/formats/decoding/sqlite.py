"""SQLite databases of other programs, read without writing a byte next to them.

A database in WAL mode is opened read-only while its writer lives, and as immutable if no writer has left a log: otherwise
SQLite would create files. Imports the standard library only.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from epochtop.configuration.regular import open_file
from epochtop.formats.decoding.growing import modified_time

MAGIC = b"SQLite format 3\0"
BUSY_S = 0.5
"""Seconds to wait for a writer that holds the database."""
ROWS = 10_000
"""Most rows of one query, so that a transaction is short and memory is bounded."""


class Database:
    """A database file. Each query opens it, so that nothing is held in between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changes: object = None

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The first ROWS rows of a query. Raises OSError if the database cannot be read now."""
        try:
            with closing(self._connect()) as connection:
                return connection.execute(statement, values).fetchmany(ROWS)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise OSError(f"{self.path}: {error}") from None

    def tables(self) -> dict[str, set[str]]:
        """Names of the columns by table. Raises OSError."""
        names = [row[0] for row in self.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: {row[0] for row in self.query("SELECT name FROM pragma_table_info(?)", name)} for name in names}

    def changes(self) -> object:
        """A value that differs after the database was changed."""
        facts = []
        for name in (self.path, self._write_ahead_log()):
            try:
                status = os.stat(name)
                facts.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                facts.append((0, 0, 0))
        return tuple(facts)

    def modified(self) -> float:
        """Unix time of the last change."""
        return modified_time(self.path, self._write_ahead_log())

    def _connect(self) -> sqlite3.Connection:
        mode = "mode=ro" if self._has_writer() else "mode=ro&immutable=1"
        name = quote(os.fsencode(os.path.abspath(self.path)))
        connection = sqlite3.connect(f"file:{name}?{mode}", uri=True, timeout=BUSY_S, isolation_level=None)
        connection.text_factory = _text
        return connection

    def _has_writer(self) -> bool:
        """Whether SQLite can coordinate with a writer without creating files."""
        with open_file(self.path) as file:
            file.seek(18)
            in_wal_mode = file.read(2) == b"\2\2"
        log = self._write_ahead_log()
        return not in_wal_mode or (log.exists() and log.with_name(f"{self.path.name}-shm").exists())

    def _write_ahead_log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
