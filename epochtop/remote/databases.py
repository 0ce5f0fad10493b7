"""SQLite databases of MLflow and Trackio in opened folders: the rows that they have gained or changed.

Rows are sent instead of the file, which a program may be writing. Opens databases read-only, as
:mod:`epochtop.formats.decoding.sqlite` describes. Imports the standard library and modules that are sent with it only.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from epochtop.formats.decoding.sqlite import Database

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from epochtop.remote.frames import Frame

METRICS = "metrics"
"""The table that only gains rows."""
COLUMNS = {
    "runs": ("run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage"),
    "params": ("key", "value", "run_uuid"),
    "configs": ("run_id", "run_name", "config"),
    METRICS: (
        "id", "key", "value", "timestamp", "run_uuid", "run_id", "run_name", "step", "is_nan", "metrics",
    ),
}  # fmt: skip
"""Columns that readers use, by table, in the order in which tables are sent."""
LOOK_S = 2.0
"""Least seconds between two looks at a database."""
SHARE = 20
"""Looks take at most one part in SHARE of the time."""
ROWS = 2_000
"""Most rows of one query."""
PART_BYTES = 1 << 20
"""Bytes of rows after which a part ends."""
LARGEST_ROW = 4 << 20
"""Most bytes of a row; a larger one is left out."""


class SentDatabase:
    """One database, and what the viewer has of it. `known` is what it has from an earlier connection; None for nothing."""

    def __init__(self, path: Path, known: dict[str, Any] | None) -> None:
        self._database = Database(path)
        self._identity = int((known or {}).get("identity", 0))
        self._last_row = int((known or {}).get("offset", 0))
        """Number of the last row of METRICS that was sent."""
        self._fresh = False
        """Whether the next part begins a new database, because the one that the viewer has is another one."""
        self._digests: dict[tuple[str, int], bytes] = {}
        """Digests of the rows of other tables that were sent, by table and number."""
        self._seen: object = None
        """State of the file at the last look."""
        self._parts: Iterator[Frame] = iter(())
        self._next_look = 0.0

    def next_part(self) -> Frame | None:
        """Rows that the viewer lacks; None if it has all of them, or if the database cannot be read now."""
        part = self._next()
        if part is not None or time.monotonic() < self._next_look:
            return part
        start = time.monotonic()
        changes = self._database.changes()
        if changes != self._seen:
            self._seen, self._parts = changes, self._new_parts()
            part = self._next()
        self._next_look = time.monotonic() + max(LOOK_S, SHARE * (time.monotonic() - start))
        return part

    def _next(self) -> Frame | None:
        try:
            return next(self._parts, None)
        except OSError:
            self._seen = None  # the next look tries again
            return None

    def _new_parts(self) -> Iterator[Frame]:
        columns = {table: self._columns(table) for table in COLUMNS}
        if not columns[METRICS]:
            return
        identity = self._identity_of(columns)
        newest = self._database.query(f"SELECT MAX(rowid) FROM {METRICS}")[0][0] or 0  # noqa: S608 - a constant
        if identity != self._identity or newest < self._last_row:
            self._fresh = self._fresh or self._identity != 0
            self._identity, self._last_row, self._digests = identity, 0, {}
        for table, names in columns.items():
            if names:
                yield from self._rows(table, names)

    def _columns(self, table: str) -> list[str]:
        there = {row[0] for row in self._database.query("SELECT name FROM pragma_table_info(?)", table)}
        return [name for name in COLUMNS[table] if name in there]

    def _identity_of(self, columns: dict[str, list[str]]) -> int:
        facts = json.dumps([os.stat(self._database.path).st_ino, columns])
        return int.from_bytes(hashlib.sha256(facts.encode()).digest()[:6], "big")

    def _rows(self, table: str, names: list[str]) -> Iterator[Frame]:
        """Rows of a table: new ones of METRICS, new and changed ones of another table."""
        statement = (
            f"SELECT rowid, {', '.join(names)} FROM {table} "  # noqa: S608 - names of COLUMNS
            "WHERE rowid > ? ORDER BY rowid LIMIT ?"
        )
        place = self._last_row if table == METRICS else 0
        rows: list[tuple[Any, ...]] = []
        while not rows or len(rows) == ROWS:
            rows = self._database.query(statement, place, ROWS)
            if not rows:
                return
            texts: list[str] = []
            size = 0
            for row in rows:
                text = json.dumps([_plain(value) for value in row])
                if len(text) <= LARGEST_ROW and (table == METRICS or self._is_new(table, row[0], text)):
                    texts.append(text)
                    size += len(text)
                place = row[0]
                if size >= PART_BYTES:
                    yield self._part(table, names, texts, place)
                    texts, size = [], 0
            if texts:
                yield self._part(table, names, texts, place)

    def _is_new(self, table: str, number: int, text: str) -> bool:
        digest = hashlib.sha256(text.encode()).digest()[:8]
        if self._digests.get((table, number)) == digest:
            return False
        self._digests[table, number] = digest
        return True

    def _part(self, table: str, names: list[str], rows: list[str], place: int) -> Frame:
        if table == METRICS:
            self._last_row = place
        header = {
            "offset": self._last_row, "identity": self._identity, "fresh": self._fresh, "table": table, "columns": names,
            "modified": self._database.modified(),
        }  # fmt: skip
        self._fresh = False
        return header, f"[{','.join(rows)}]".encode("ascii")


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
