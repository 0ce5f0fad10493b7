"""Tables from CSV files, with errors that name the file, the row and the column.

A large file is read by :mod:`epochtop.engine.data.tables.csv_blocks`; whatever that finds odd is read again here, where it is explained.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.labels import MISSING, Labels, labels_of
from epochtop.engine.data.tables.header import Header, is_finite, is_number, parse_header, shortened
from epochtop.engine.protocol.spec import Invalid

LARGE_BYTES = 2**26
"""Files of at least this size are read in blocks, their values rounded to float32."""


def read_csv(path: Path, target: str, say: Callable[[str], None]) -> RawDataset:
    """Read a table with a header row, whose column `target` has the labels. Raises Invalid.

    The delimiter is the one of `, ; tab |` that the header has most of. x is float64, or float32 of a large file.
    """
    with _explained(path):
        large = path.stat().st_size >= LARGE_BYTES
        found = _read_large(path, target, say) if large else None
        header, x, labels = found or _read_rows(path, target)
    columns = tuple(name for name in header.names if name != target)
    return RawDataset(
        kind="table", x=x, y=labels.y, loss=labels.loss, classes=labels.classes, columns=columns, target=target
    )


def read_columns(path: Path, wanted: Sequence[str]) -> npt.NDArray[np.float64]:
    """The columns `wanted` of a file with a header row, whatever the others hold; (rows, wanted). Raises Invalid."""
    with _explained(path), open(path, encoding="utf-8-sig", newline="") as file:
        header = parse_header(path, file.readline())
        header.check_names()
        missing = [name for name in wanted if name not in header.names]
        if missing:
            names = ", ".join(map(repr, missing))
            raise Invalid("dataset", f"{path} has no column {names}; the model needs {len(wanted)} columns")
        places = [header.names.index(name) for name in wanted]
        return _Rows(header, places, _cells(header, file)).read()[0]


def _read_large(path: Path, target: str, say: Callable[[str], None]) -> tuple[Header, npt.NDArray[Any], Labels] | None:
    """What :func:`_read_rows` gives, in float32, of a file without anything odd; else None."""
    from epochtop.engine.data.tables.csv_blocks import read_blocks
    from epochtop.engine.data.tables.csv_parallel import read_parts

    with open(path, "rb") as file:
        first = file.readline().decode("utf-8-sig")
        if "\r" in first.rstrip("\r\n"):
            return None
        return read_blocks(file, parse_header(path, first), target, say, read_parts)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of reading a file in a person's words."""
    try:
        yield
    except FileNotFoundError:
        raise Invalid("dataset", f"there is no file {path}") from None
    except IsADirectoryError:
        raise Invalid("dataset", f"{path} is a folder; name a CSV file in it") from None
    except OSError as error:
        raise Invalid("dataset", f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid("dataset", f"{_bad_byte(path)}; save the file as UTF-8") from None


def _bad_byte(path: Path) -> str:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                return f"{path}, row {number}: byte 0x{line[error.start]:02x} is not UTF-8"
    return f"{path} is not UTF-8"


def _read_rows(path: Path, target: str) -> tuple[Header, npt.NDArray[np.float64], Labels]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = parse_header(path, file.readline())
        label = header.place(target)
        places = [place for place in range(len(header.names)) if place != label]
        x, texts = _Rows(header, places, _cells(header, file), label).read()
    if len(x) < 2:
        raise Invalid("dataset", f"{path} has {len(x)} rows below its header; at least two are needed")
    return header, x, labels_of(texts, target)


def _cells(header: Header, file: Any) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows with their cells; the header is row 1. Raises Invalid for quotes that are never closed."""
    number = 1
    try:
        for number, cells in enumerate(csv.reader(file, delimiter=header.delimiter, strict=True), start=2):
            if cells:
                yield number, cells
    except csv.Error as error:
        raise Invalid("dataset", f"{header.path}, row {number + 1}: {error}") from None


@dataclass(frozen=True)
class _Rows:
    """Rows that are read as numbers: the columns at `places`, and the text of the one at `label`."""

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
                    f"{self._where(number)} has {len(cells)} fields, the header has {len(self.header.names)}",
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
        try:
            numbers = [float(cells[place]) for place in self.places]
        except ValueError:
            self._explain(number, cells)
        if not all(map(math.isfinite, numbers)):
            self._explain(number, cells)
        return numbers

    def _explain(self, number: int, cells: list[str]) -> NoReturn:
        """Say what the first cell that cannot be used lacks."""
        place = next(place for place in self.places if not is_finite(cells[place]))
        where, cell = f"{self._where(number)}, column {self.header.names[place]!r}", cells[place].strip()
        if cell.lower() in MISSING:
            raise Invalid("dataset", f"{where}: the value is missing; fill it in or drop the row")
        if is_number(cell):
            raise Invalid("dataset", f"{where}: {shortened(cell)} is not a finite number")
        texts = self._later_texts() | self._texts(cells)
        if len(texts) == 1:
            raise Invalid(
                "dataset", f"{where}: {shortened(cell)} is not a number; encode text as numbers or drop the column"
            )
        named = ", ".join(f"{self.header.names[place]!r} ({shortened(texts[place])})" for place in sorted(texts))
        raise Invalid(
            "dataset",
            f"{self._where(number)}: {len(texts)} columns hold text: {named}; encode it as numbers or drop the columns",
        )

    def _texts(self, cells: list[str]) -> dict[int, str]:
        """Cells of the row that are words where numbers should be, by place."""
        return {
            place: cells[place].strip()
            for place in self.places
            if not is_number(cells[place]) and cells[place].strip().lower() not in MISSING
        }

    def _later_texts(self) -> dict[int, str]:
        """The same of all rows that are left, as far as they can be read: a file is corrected once, not per column."""
        found: dict[int, str] = {}
        try:
            for _, cells in self.rows:
                if len(cells) == len(self.header.names):
                    found = self._texts(cells) | found
        except (Invalid, UnicodeDecodeError):
            pass
        return found
