"""Tables in SQLite databases, which are opened for reading only. Never imports torch."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, quote

from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.tables.cells.objects import column_of_objects
from epochtop.engine.data.tables.column import ChooseTypes, Table
from epochtop.engine.protocol.spec import Invalid

_EXAMPLE = "sqlite:file.db?table=TABLE"


def split_query(where: str) -> tuple[str, str]:
    """The file and the table that `file.db?table=NAME` names; an empty table if it names none. Raises Invalid."""
    path, mark, query = where.partition("?")
    values = parse_qs(query, keep_blank_values=True)
    if mark and list(values) != ["table"]:
        raise Invalid("dataset", f"{where}: after the ? only table=NAME is known; write {_EXAMPLE}")
    return path, values["table"][0] if mark else ""


def read_sqlite(path: Path, table: str, choose: ChooseTypes) -> Table:
    """The rows of a table or view. An empty name takes the only table of the database. Raises Invalid."""
    with explain_errors(path, "SQLite database"), open(path, "rb"):
        pass
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return _read(path, table or _only_table(path, connection), choose, connection)
    except sqlite3.Error as error:
        raise Invalid("dataset", f"{path} cannot be read as an SQLite database: {error}") from None


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"
    return [name for (name,) in connection.execute(query)]


def _only_table(path: Path, connection: sqlite3.Connection) -> str:
    names = _tables(connection)
    if len(names) != 1:
        listed = f"has the tables {', '.join(names[:12])}" if names else "has no tables"
        raise Invalid("dataset", f"{path} {listed}; name one: {_EXAMPLE}")
    return names[0]


def _read(path: Path, table: str, choose: ChooseTypes, connection: sqlite3.Connection) -> Table:
    names = _tables(connection)
    if table not in names:
        raise Invalid("dataset", f"{path} has no table {table!r}; its tables are {', '.join(names[:12])}")
    quoted = table.replace('"', '""')
    cursor = connection.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 - a table of this database, quoted
    columns = tuple(description[0] for description in cursor.description)
    types = choose(columns)
    rows = cursor.fetchall()
    cells = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return Table(
        source=f"{path}, table {table}",
        columns=tuple(
            column_of_objects(name, list(values), kind)
            for name, values, kind in zip(columns, cells, types, strict=True)
            if kind != "skip"
        ),
        lines=range(1, len(rows) + 1),
        unit="row",
    )
