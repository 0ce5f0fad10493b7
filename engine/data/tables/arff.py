"""Tables in ARFF files, the format of Weka: declared columns, then rows of cells. Never imports torch."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epochtop.engine.data.tables.cells.numbers import PLAIN, NotNumbersError, floats_of
from epochtop.engine.data.tables.cells.typed import typed
from epochtop.engine.data.tables.column import CellType, ChooseTypes, Column, NumberColumn, Table, TextColumn
from epochtop.engine.data.tables.csv_files.plain_text import plain_text
from epochtop.engine.protocol.spec import Invalid

_ATTRIBUTE = re.compile(r"@attribute\s+('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)\s+(.+)", re.IGNORECASE | re.DOTALL)
_NUMERIC = ("numeric", "real", "integer")


@dataclass(frozen=True)
class _Attribute:
    name: str
    is_number: bool
    categories: tuple[str, ...]
    """Declared values of a nominal column; empty for other columns."""


def read_arff(path: Path, choose: ChooseTypes, encoding: str = "auto") -> Table:
    """The table in an ARFF file, which may be compressed. Raises Invalid with the line."""
    with plain_text(path, encoding, kind="ARFF file") as text, open(text.path, encoding="utf-8") as file:
        file.seek(text.start)
        lines = enumerate(file, start=1)
        attributes = _attributes(path, lines)
        types = choose(tuple(attribute.name for attribute in attributes))
        rows, numbers = _rows(path, lines, len(attributes))
    cells = [[row[place] for row in rows] for place in range(len(attributes))]
    columns = [
        _column(path, attribute, column, kind, numbers)
        for attribute, column, kind in zip(attributes, cells, types, strict=True)
        if kind != "skip"
    ]
    return Table(str(path), tuple(columns), np.array(numbers, dtype=np.int64))


def _attributes(path: Path, lines: Iterator[tuple[int, str]]) -> list[_Attribute]:
    """The declared columns; leaves `lines` after `@data`."""
    attributes = []
    for number, line in lines:
        text = line.strip()
        if text.lower().startswith("@attribute"):
            attributes.append(_attribute(path, number, text))
        elif text.lower().startswith("@data"):
            break
    if not attributes:
        raise Invalid("dataset", f"{path} is not an ARFF file: it declares no @attribute before @data")
    return attributes


def _attribute(path: Path, number: int, text: str) -> _Attribute:
    match = _ATTRIBUTE.fullmatch(text)
    if match is None:
        raise Invalid("dataset", f"{path}, line {number}: an attribute needs a name and a type: @attribute age numeric")
    name, kind = _unquoted(match[1]), match[2].strip()
    if kind.startswith("{"):
        return _Attribute(name, False, tuple(_cells(kind.strip("{} \t"))))
    return _Attribute(name, kind.split()[0].lower() in _NUMERIC, ())


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _cells(line: str) -> list[str]:
    """The cells of a row; the first quote in it says which kind of quotes it uses."""
    quote = next((letter for letter in line if letter in "'\""), "'")
    delimiter = "\t" if "\t" in line and "," not in line else ","
    reader = csv.reader([line], delimiter=delimiter, quotechar=quote, escapechar="\\", skipinitialspace=True)
    return [cell.strip() for cell in next(reader, [])]


def _rows(path: Path, lines: Iterator[tuple[int, str]], width: int) -> tuple[list[list[str]], list[int]]:
    rows, numbers = list[list[str]](), list[int]()
    for number, line in lines:
        text = line.strip()
        if not text or text.startswith("%"):
            continue
        if text.startswith("{"):
            raise Invalid("dataset", f"{path}, line {number}: sparse rows are not read; save the table as a CSV file")
        cells = _cells(text)
        if len(cells) != width:
            raise Invalid("dataset", f"{path}, line {number} has {len(cells)} cells; {width} columns are declared")
        rows.append(cells)
        numbers.append(number)
    return rows, numbers


def _column(path: Path, attribute: _Attribute, cells: list[str], kind: CellType, lines: list[int]) -> Column:
    if attribute.is_number and kind != "text":
        try:
            return NumberColumn(attribute.name, floats_of(["" if cell == "?" else cell for cell in cells], PLAIN))
        except NotNumbersError as error:
            line = lines[cells.index(str(error))]
            message = f"{path}, line {line}, column {attribute.name!r}: {str(error)!r} is not a number"
            raise Invalid("dataset", message) from None
    code_of = {category: code for code, category in enumerate(attribute.categories)}
    codes = [-1 if cell == "?" else code_of.setdefault(cell, len(code_of)) for cell in cells]
    column = TextColumn(attribute.name, np.array(codes, dtype=np.int32), tuple(code_of))
    return column if attribute.categories and kind != "number" else typed(column, kind)
