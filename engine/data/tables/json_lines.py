"""Tables in JSON lines: one object per line, whose keys are the columns. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from epochtop.engine.data.tables.cells.objects import column_of_objects
from epochtop.engine.data.tables.column import ChooseTypes, Table
from epochtop.engine.data.tables.csv_files.plain_text import plain_text
from epochtop.engine.protocol.spec import Invalid


def read_json_lines(path: Path, choose: ChooseTypes, encoding: str = "auto") -> Table:
    """The table in a file of JSON lines, which may be compressed. Raises Invalid with the line.

    The columns are the keys of all objects, in the order in which they appear; a row without a key has no value.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    rows, lines = list[dict[str, Any]](), list[int]()
    with (
        plain_text(path, encoding, kind="file of JSON lines", is_delimited=False) as text,
        open(text.path, "rb") as file,
    ):
        file.seek(text.start)
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_object(path, number, line, decoder))
                lines.append(number)
    if not rows:
        raise Invalid("dataset", f'{path} is empty; it needs an object such as {{"a": 1, "kind": "x"}} on each line')
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    types = choose(names)
    columns = [
        column_of_objects(name, [row.get(name) for row in rows], kind)
        for name, kind in zip(names, types, strict=True)
        if kind != "skip"
    ]
    return Table(str(path), tuple(columns), np.array(lines, dtype=np.int64))


def _object(path: Path, number: int, line: bytes, decoder: msgspec.json.Decoder[dict[str, Any]]) -> dict[str, Any]:
    try:
        return decoder.decode(line)
    except msgspec.DecodeError as error:
        if number == 1 and line.lstrip().startswith(b"["):
            advice = f"; a JSON array is converted with: jq -c '.[]' {path.name} > table.jsonl"
        else:
            advice = "; each line must be one JSON object"
        raise Invalid("dataset", f"{path}, line {number}: {error}{advice}") from None
