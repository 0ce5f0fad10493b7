"""SQLite databases of another machine: rows that it has sent, in databases of the mirror with the same tables.

Names and values come from another machine and are checked. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from epochtop.remote.databases import COLUMNS
from epochtop.remote.frames import ProtocolError

BUSY_S = 5.0
"""Seconds to wait for readers of this machine."""
OWNERS = ("run_uuid", "run_id", "run_name")
"""Columns that tell the run of a row; the first of a table is indexed."""
LARGEST_INTEGER = 1 << 63


def store_rows(path: Path, header: dict[str, Any], body: bytes) -> None:
    """Add rows to a table of a database, or replace those with the same numbers. Raises ProtocolError, OSError."""
    table, columns, rows = str(header.get("table")), header.get("columns"), _rows(body)
    if table not in COLUMNS or not isinstance(columns, list) or not set(map(str, columns)) <= set(COLUMNS[table]):
        raise ProtocolError("it sent a table that no log has")
    if any(len(row) != len(columns) + 1 or type(row[0]) is not int for row in rows):
        raise ProtocolError("it sent rows that do not fit their table")
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as database:
            _write(database, table, columns, rows, is_new=bool(header["fresh"]))
    except sqlite3.Error as error:
        raise OSError(0, f"{path.name} cannot be written: {error}") from None


def _rows(body: bytes) -> list[list[Any]]:
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, list) and all(map(_is_value, row)) for row in rows):
        raise ProtocolError("it sent rows that cannot be read")
    return rows


def _is_value(value: object) -> bool:
    """Whether a value can be stored."""
    if isinstance(value, int):
        return -LARGEST_INTEGER <= value < LARGEST_INTEGER
    return value is None or isinstance(value, float | str)


def _write(database: sqlite3.Connection, table: str, columns: list[str], rows: list[list[Any]], is_new: bool) -> None:
    """One transaction. Names are those of COLUMNS."""
    database.executescript(
        "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;"
    )  # a mirror is made again after a crash
    database.execute("BEGIN IMMEDIATE")
    for name in COLUMNS if is_new else ():
        database.execute(f"DROP TABLE IF EXISTS {name}")
    names = ", ".join(columns)
    database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({names})")
    owner = next((name for name in OWNERS if name in columns), "")
    if owner:
        database.execute(f"CREATE INDEX IF NOT EXISTS {table}_owner ON {table} ({owner})")
    marks = ", ".join("?" * (len(columns) + 1))
    database.executemany(f"INSERT OR REPLACE INTO {table} (rowid, {names}) VALUES ({marks})", rows)  # noqa: S608 - names of COLUMNS
    database.execute("COMMIT")
