"""Numeric tables from CSV files, with errors that name the file, the row and the column."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.spec import Invalid

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
_DELIMITERS = ",;\t|"


def read_csv(path: Path, target: str) -> tuple[tuple[str, ...], npt.NDArray[np.float64], list[str]]:
    """Read a table with a header row.

    Returns the names of the feature columns, the features as float64 (rows, features), and the texts of the
    column `target`. The delimiter is the one of `, ; tab |` that the header has most of. Raises Invalid.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read(path, target, file.readline(), file)
    except FileNotFoundError:
        raise Invalid("dataset", f"there is no file {path}") from None
    except IsADirectoryError:
        raise Invalid("dataset", f"{path} is a folder; name a CSV file in it") from None
    except OSError as error:
        raise Invalid("dataset", f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid("dataset", f"{_bad_byte(path)}; save the file as UTF-8") from None


def _bad_byte(path: Path) -> str:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return f"{path}, row {number}: byte 0x{line[error.start]:02x} is not UTF-8"
    return f"{path} is not UTF-8"


def _read(
    path: Path, target: str, first: str, file: Iterable[str]
) -> tuple[tuple[str, ...], npt.NDArray[np.float64], list[str]]:
    if not first.strip():
        raise Invalid("dataset", f"{path} is empty; a header row and at least two rows are needed")
    delimiter = max(_DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    label = _label_column(path, header, target)
    columns = tuple(name for place, name in enumerate(header) if place != label)
    rows: list[list[float]] = []
    labels: list[str] = []
    try:
        for number, cells in enumerate(csv.reader(file, delimiter=delimiter, strict=True), start=2):
            if not cells:
                continue
            where = f"{path}, row {number}"
            if len(cells) != len(header):
                raise Invalid("dataset", f"{where} has {len(cells)} fields, the header has {len(header)}")
            labels.append(_label(where, target, cells.pop(label)))
            rows.append(_numbers(where, columns, cells))
    except csv.Error as error:
        raise Invalid("dataset", f"{path}, row {len(rows) + 2}: {error}") from None
    if len(rows) < 2:
        raise Invalid("dataset", f"{path} has {len(rows)} rows below its header; at least two are needed")
    return columns, np.array(rows, dtype=np.float64), labels


def _label_column(path: Path, header: list[str], target: str) -> int:
    if all(_is_number(name) for name in header):
        raise Invalid("dataset", f"{path}, row 1: the first row must name the columns; it holds numbers only")
    names = ", ".join(header[:12]) + (", …" if len(header) > 12 else "")
    if not target:
        raise Invalid("target", f"name the label column of {path}; it has: {names}")
    if target not in header:
        raise Invalid("target", f"{path} has no column {target!r}; it has: {names}")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise Invalid("dataset", f"{path}, row 1: the column {twice!r} is there twice; give each its own name")
    if len(header) < 2:
        raise Invalid("dataset", f"{path} has only the column {target!r}; a feature column is needed too")
    return header.index(target)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label(where: str, target: str, text: str) -> str:
    text = text.strip()
    if text.lower() in MISSING:
        raise Invalid("dataset", f"{where}, column {target!r}: the label is missing; fill it in or drop the row")
    return text


def _numbers(where: str, columns: tuple[str, ...], cells: list[str]) -> list[float]:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        for name, cell in zip(columns, cells, strict=True):
            _explain(f"{where}, column {name!r}", cell.strip())
    return numbers


def _explain(where: str, cell: str) -> None:
    if cell.lower() in MISSING:
        raise Invalid("dataset", f"{where}: the value is missing; fill it in or drop the row")
    if not _is_number(cell):
        raise Invalid("dataset", f"{where}: {cell!r} is not a number; encode text as numbers or drop the column")
    if not math.isfinite(float(cell)):
        raise Invalid("dataset", f"{where}: {cell!r} is not a finite number")
