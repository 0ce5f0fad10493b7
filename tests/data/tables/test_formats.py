"""The same table in every format: Parquet, Feather, JSON lines, ARFF, SQLite and CSV give the same columns."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epochtop.engine.data.tables.column import NumberColumn, Table, TextColumn, TimeColumn
from epochtop.engine.data.tables.read import read_table
from epochtop.engine.protocol.spec import Invalid
from tests.data.tables.test_dialects import cells_of, last_is_label

ROWS: list[dict[str, Any]] = [
    {"age": 31, "city": "Rome", "when": "2024-01-31", "kind": "x"},
    {"age": None, "city": None, "when": "2024-02-29", "kind": "y"},
    {"age": 4.5, "city": "Oslo", "when": "2024-03-01", "kind": "x"},
]
EXPECTED = {name: [row[name] for row in ROWS] for name in ROWS[0]}


def _csv(file: Path) -> None:
    lines = [",".join("" if cell is None else str(cell) for cell in row.values()) for row in ROWS]
    file.write_text("\n".join([",".join(ROWS[0]), *lines]))


def _parquet(file: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    __import__("pyarrow.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)


def _feather(file: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    __import__("pyarrow.feather")
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(ROWS), file)


def _jsonl(file: Path) -> None:
    file.write_text("\n".join(map(json.dumps, ROWS)))


def _arff(file: Path) -> None:
    text = "% a comment\n@RELATION people\n@ATTRIBUTE age NUMERIC\n@attribute 'city' {Rome,Oslo,'New York'}\n"
    text += "@attribute when string\n@attribute kind {x,y}\n@data\n31,Rome,2024-01-31,x\n?,?,'2024-02-29',y\n"
    file.write_text(text + "\n% another\n4.5,Oslo,2024-03-01,x\n")


def _sqlite(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE people (age REAL, city TEXT, 'when' TEXT, kind TEXT)")
        connection.executemany("INSERT INTO people VALUES (:age, :city, :when, :kind)", ROWS)


WRITERS: dict[str, Callable[[Path], None]] = {
    "csv": _csv, "parquet": _parquet, "feather": _feather, "jsonl": _jsonl, "arff": _arff, "sqlite": _sqlite,
}  # fmt: skip


@pytest.mark.parametrize("source", WRITERS)
def test_a_table_is_the_same_in_every_format(tmp_path: Path, source: str) -> None:
    file = tmp_path / f"t.{source}"
    WRITERS[source](file)
    table = read_table(source, file, last_is_label)
    assert cells_of(table) == EXPECTED
    assert len(table) == 3
    assert list(table.lines)[1] == {"csv": 3, "jsonl": 2, "arff": 9}.get(source, 2)
    chosen = read_table(source, file, lambda names: ["skip", "text", "skip", "label"])
    assert chosen.names == ("city", "kind")


def test_only_the_named_table_of_a_database_is_read(tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    _sqlite(file)
    assert cells_of(read_table("sqlite", Path(f"{file}?table=people"), last_is_label)) == EXPECTED
    with pytest.raises(Invalid, match=r"has no table 'persons'; its tables are people"):
        read_table("sqlite", Path(f"{file}?table=persons"), last_is_label)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute('CREATE TABLE "a "" b" (x INTEGER, y TEXT)')
        connection.execute('INSERT INTO "a "" b" VALUES (1, "u")')
    with pytest.raises(Invalid, match=r"has the tables a \" b, people; name one: sqlite:file.db\?table=TABLE"):
        read_table("sqlite", file, last_is_label)
    table = read_table("sqlite", Path(f'{file}?table=a " b'), last_is_label)
    assert cells_of(table) == {"x": [1], "y": ["u"]}
    file.write_bytes(b"no database" * 50)
    with pytest.raises(Invalid, match="cannot be read as an SQLite database"):
        read_table("sqlite", file, last_is_label)


def test_types_that_a_parquet_file_declares_are_kept(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    __import__("pyarrow.parquet")
    names = pyarrow.array(["u", None, "v"]).dictionary_encode()
    days = pyarrow.array([0, 1, None], pyarrow.date32())
    moments = pyarrow.array([0, 3_600_000, None], pyarrow.timestamp("ms", tz="Europe/Rome"))
    whole = pyarrow.array([1, None, 3], pyarrow.int64())
    truth = pyarrow.array([True, None, False])
    columns = {"d": names, "day": days, "at": moments, "n": whole, "b": truth, "f": pyarrow.array([1.5, 2, 3], "float")}
    pyarrow.parquet.write_table(pyarrow.table(columns | {"kind": ["x", "y", "x"]}), tmp_path / "t.parquet")
    table = read_table("parquet", tmp_path / "t.parquet", last_is_label)
    assert cells_of(table)["d"] == ["u", None, "v"]
    assert cells_of(table)["n"] == [1, None, 3]
    assert cells_of(table)["b"] == ["True", None, "False"]
    day, moment = table.column("day"), table.column("at")
    assert isinstance(day, TimeColumn)
    assert isinstance(moment, TimeColumn)
    assert day.values.astype(str).tolist()[:2] == ["1970-01-01T00:00:00.000000", "1970-01-02T00:00:00.000000"]
    assert moment.values[1] == np.datetime64("1970-01-01T01:00")
    assert np.isnat(day.values[2])


def test_json_lines_may_differ_in_keys_and_nest(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(gzip.compress(b'{"a": true, "kind": 1}\n\n{"b": [1, 2], "kind": 2}\n{"a": false, "kind": 1}'))
    table = read_table("jsonl", file, lambda names: ["any", "label", "any"])
    assert table.names == ("a", "kind", "b")
    assert cells_of(table) == {"a": ["True", None, "False"], "kind": [1, 2, 1], "b": [None, "[1,2]", None]}
    assert list(table.lines) == [1, 3, 4]
    file.write_text('{"a": 1}\n{"a": }\n')
    with pytest.raises(Invalid, match=r"t.jsonl, line 2: .*each line must be one JSON object"):
        read_table("jsonl", file, lambda names: ["any"])


BAD_ARFF = {
    "@relation r\n@data\n1\n": "declares no @attribute",
    "@attribute a numeric\n@attribute b numeric\n@data\n1,2\n3\n": "line 5 has 1 cells; 2 columns are declared",
    "@attribute a numeric\n@attribute b numeric\n@data\n1,2\n{0 3}\n": "line 5: sparse rows",
    "@attribute a numeric\n@attribute b numeric\n@data\n1,2\n3,x\n": "line 5, column 'b': 'x' is not a number",
}


@pytest.mark.parametrize("content", BAD_ARFF)
def test_an_arff_file_that_cannot_be_read_names_the_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.arff").write_text(content)
    with pytest.raises(Invalid, match=BAD_ARFF[content]):
        read_table("arff", tmp_path / "t.arff", lambda names: ["any"] * len(names))


def test_a_column_of_both_numbers_and_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1, "k": "x"}\n{"a": "two", "k": "y"}')
    table: Table = read_table("jsonl", tmp_path / "t.jsonl", last_is_label)
    assert isinstance(table.column("a"), TextColumn)
    assert cells_of(table)["a"] == ["1", "two"]
    assert not isinstance(table.column("k"), NumberColumn)
