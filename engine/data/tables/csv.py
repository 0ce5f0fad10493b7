"""Tables from CSV files, with errors that name the file, the row and the column.

A large file goes to :mod:`epochtop.engine.data.tables.csv_blocks` first; what that cannot read is read again here, where
errors are explained. Never imports torch.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import OnProgress, RawDataset
from epochtop.engine.data.labels import MISSING, Labels, labels_of
from epochtop.engine.data.number_text import floats, is_finite, is_infinity, is_number
from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.tables.header import Header, parse_header, quoted
from epochtop.engine.protocol.datasets import Problem
from epochtop.engine.protocol.spec import Invalid

LARGE_BYTES = 2**26
"""Files from this size on are read in blocks and rounded to float32."""
_KIND = "CSV file"


def read_csv(path: Path, target: str, report: OnProgress, problem: Problem = "auto") -> RawDataset:
    """Read a table with a header row and the labels in column `target`. Raises Invalid.

    The delimiter is the most frequent of `, ; tab |` in the header. x is float64, or float32 for a large file.
    """
    with explain_errors(path, _KIND):
        is_large = path.stat().st_size >= LARGE_BYTES
        table = _read_large(path, target, problem, report) if is_large else None
        header, x, labels = table or _read_rows(path, target, problem)
    return RawDataset(
        kind="table",
        x=x,
        y=labels.y,
        loss=labels.loss,
        classes=labels.classes,
        columns=tuple(name for name in header.names if name != target),
        target=target,
        notes=(*header.notes(), *labels.notes),
    )


def read_columns(path: Path, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """The numbers in `columns` of a file with a header row, float64 (rows, columns). Raises Invalid.

    Other columns may hold anything.
    """
    with explain_errors(path, _KIND), open(path, encoding="utf-8-sig", newline="") as file:
        header = parse_header(path, file.readline())
        header.check_names()
        missing = [name for name in columns if name not in header.names]
        if missing:
            names = ", ".join(map(repr, missing))
            raise Invalid("dataset", f"{path} has no column {names}; the model needs {len(columns)} columns")
        places = [header.names.index(name) for name in columns]
        return _Rows(header, places, _cells(header, file)).read()[0]


def _read_large(
    path: Path, target: str, problem: Problem, report: OnProgress
) -> tuple[Header, npt.NDArray[Any], Labels] | None:
    """The table in float32; None if the file holds anything but plain numbers and labels."""
    from epochtop.engine.data.tables.csv_blocks import read_blocks
    from epochtop.engine.data.tables.csv_parallel import read_parts

    with open(path, "rb") as file:
        first = file.readline().decode("utf-8-sig")
        if "\r" in first.rstrip("\r\n"):
            return None
        table = read_blocks(file, parse_header(path, first), target, report, read_parts)
    if table is None:
        return None
    header, x, column = table
    labels = column.decoded(target, problem)
    return None if labels is None else (header, x, labels)


def _read_rows(path: Path, target: str, problem: Problem) -> tuple[Header, npt.NDArray[np.float64], Labels]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = parse_header(path, file.readline())
        label = header.label_index(target)
        places = [place for place in range(len(header.names)) if place != label]
        x, texts = _Rows(header, places, _cells(header, file), label).read()
    if len(x) < 2:
        raise Invalid("dataset", f"{path} has {len(x)} rows below its header; it needs at least two")
    return header, x, labels_of(texts, target, problem)


def _cells(header: Header, file: Any) -> Iterator[tuple[int, list[str]]]:
    """Row numbers with cells; the header is row 1. Raises Invalid for a quote that is never closed."""
    number = 1
    try:
        for number, cells in enumerate(csv.reader(file, delimiter=header.delimiter, strict=True), start=2):
            if cells:
                yield number, cells
    except csv.Error as error:
        raise Invalid("dataset", f"{header.path}, row {number + 1}: {error}") from None


@dataclass(frozen=True)
class _Rows:
    """Rows to read: the columns at `places` as numbers, and the column at `label` as text."""

    header: Header
    places: list[int]
    rows: Iterator[tuple[int, list[str]]]
    label: int | None = None

    def read(self) -> tuple[npt.NDArray[np.float64], list[str]]:
        """Features, float64 (rows, places), and labels. Raises Invalid."""
        values, labels = array("d"), list[str]()
        for number, cells in self.rows:
            if len(cells) != len(self.header.names):
                raise Invalid(
                    "dataset",
                    f"{self._where(number)} has {len(cells)} cells; the header has {len(self.header.names)}",
                )
            if self.label is not None:
                labels.append(self._label(number, cells[self.label]))
            values.extend(self._numbers(number, cells))
        return np.array(values, dtype=np.float64).reshape(-1, len(self.places)), labels

    def _where(self, number: int) -> str:
        return f"{self.header.path}, row {number}"

    def _label(self, number: int, text: str) -> str:
        text = text.strip()
        if text.lower() in MISSING:
            name = self.header.names[self.label or 0]
            raise Invalid(
                "dataset", f"{self._where(number)}, column {name!r}: the label is missing; fill it in or drop the row"
            )
        return text

    def _numbers(self, number: int, cells: list[str]) -> list[float]:
        numbers = floats([cells[place] for place in self.places])
        if numbers is None:
            self._explain(number, cells)
        return numbers

    def _explain(self, number: int, cells: list[str]) -> NoReturn:
        """Raise Invalid for the first cell that is not a finite number."""
        place = next(place for place in self.places if not is_finite(cells[place]))
        where, cell = f"{self._where(number)}, column {self.header.names[place]!r}", cells[place].strip()
        if cell.lower() in MISSING:
            raise Invalid("dataset", f"{where}: the value is missing; fill it in or drop the row")
        if is_number(cell) or is_infinity(cell):
            raise Invalid("dataset", f"{where}: {quoted(cell)} is not a finite number")
        texts = self._later_texts() | self._texts(cells)
        if len(texts) == 1:
            raise Invalid(
                "dataset", f"{where}: {quoted(cell)} is not a number; encode text as numbers or drop the column"
            )
        named = ", ".join(f"{self.header.names[place]!r} ({quoted(texts[place])})" for place in sorted(texts))
        raise Invalid(
            "dataset",
            f"{self._where(number)}: {len(texts)} columns hold text: {named}; encode it as numbers or drop the columns",
        )

    def _texts(self, cells: list[str]) -> dict[int, str]:
        """Cells of the row that hold text instead of a number, by place."""
        return {
            place: cells[place].strip()
            for place in self.places
            if not is_number(cells[place]) and cells[place].strip().lower() not in MISSING
        }

    def _later_texts(self) -> dict[int, str]:
        """Such cells in the remaining readable rows, so that one message names every column to correct."""
        texts: dict[int, str] = {}
        try:
            for _, cells in self.rows:
                if len(cells) == len(self.header.names):
                    texts = self._texts(cells) | texts
        except (Invalid, UnicodeDecodeError):
            pass
        return texts
