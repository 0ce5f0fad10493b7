"""The columns of a table as texts, from CSV, Parquet or JSON lines. Never imports torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.tables.header import parse_header
from epochtop.engine.protocol.spec import Invalid

LONGEST_CELL = 2**27
"""Characters of a cell at most."""

Columns = dict[str, list[str]]
"""Texts by the name of their column; a missing value is empty."""


def read_columns_of_texts(path: Path) -> Columns:
    """All columns of a table, by the ending of the file. Raises Invalid with the file and the row."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet(path)
    return _rows(path, _json_rows(path) if ending in (".jsonl", ".ndjson") else _csv_rows(path))


def _rows(path: Path, rows: Iterable[dict[str, str]]) -> Columns:
    columns: Columns = {}
    count = 0
    for row in rows:
        for name in row:
            if name not in columns:
                columns[name] = [""] * count
        for name, texts in columns.items():
            texts.append(row.get(name, ""))
        count += 1
    if not count:
        raise Invalid("dataset", f"{path} has no rows")
    return columns


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(LONGEST_CELL)
    with explain_errors(path, "table"), open(path, encoding="utf-8-sig", newline="") as file:
        header = parse_header(path, file.readline())
        header.check_names()
        reader = csv.reader(file, delimiter=header.delimiter, strict=True)
        try:
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header.names):
                    raise Invalid(
                        "dataset",
                        f"{path}, line {reader.line_num + 1}: has {len(cells)} cells, but the header has "
                        f"{len(header.names)}; put texts with a {header.delimiter!r} in quotes",
                    )
                yield dict(zip(header.names, cells, strict=True))
        except csv.Error as error:
            raise Invalid("dataset", f"{path}, line {reader.line_num + 1}: {error}") from None


def _json_rows(path: Path) -> Iterator[dict[str, str]]:
    with explain_errors(path, "table", unit="line"), open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise Invalid("dataset", f"{path}, line {number}: is not a JSON object ({error})") from None
            yield {name: as_text(value) for name, value in values.items()}


def _parquet(path: Path) -> Columns:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise Invalid(
            "dataset", "a .parquet file needs pyarrow; install it with: pip install 'epochtop[parquet]'"
        ) from None
    with explain_errors(path, "Parquet file"), open(path, "rb"):
        pass
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise Invalid("dataset", f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    return {name: [as_text(value) for value in table.column(name).to_pylist()] for name in table.column_names}


def as_text(value: Any) -> str:
    """A value of JSON or Parquet as a cell of a CSV file would have it; a missing value is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)
