"""The header of a CSV file: delimiter, column names, and the column that holds the labels."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid

_DELIMITERS = ",;\t|"


_MOST_SHOWN = 40


@dataclass(frozen=True)
class Header:
    """The first row of a file."""

    path: Path
    delimiter: str
    names: tuple[str, ...]

    def place(self, target: str) -> int:
        """Where the label column is. Raises Invalid unless the header is one that can be trained on."""
        path, names = self.path, self.names
        if all(map(is_number, names)):
            raise Invalid("dataset", f"{path}, row 1: the first row must name the columns; it holds numbers only")
        shown = _on_one_line(", ".join(names[:12]) + (", …" if len(names) > 12 else ""))
        if not target:
            raise Invalid("target", f"name the label column of {path}; it has: {shown}")
        if target not in names:
            raise Invalid("target", f"{path} has no column {target!r}; it has: {shown}")
        self.check_names()
        if len(names) < 2:
            raise Invalid("dataset", f"{path} has only the column {target!r}; a feature column is needed too")
        return names.index(target)

    def check_names(self) -> None:
        """Raises Invalid where two columns have one name."""
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise Invalid("dataset", f"{self.path}, row 1: the column {twice!r} is there twice; give each its own name")


def delimiter_of(header: str) -> str:
    """The one of `, ; tab |` that a header has most of."""
    return max(_DELIMITERS, key=header.count)


def parse_header(path: Path, first: str) -> Header:
    if not first.strip():
        raise Invalid("dataset", f"{path} is empty; a header row and at least two rows are needed")
    delimiter = delimiter_of(first)
    try:
        names = tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter)))
    except csv.Error as error:
        raise Invalid("dataset", f"{path}, row 1: {error}") from None
    return Header(path, delimiter, names)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_finite(text: str) -> bool:
    return is_number(text) and math.isfinite(float(text))


def shortened(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…")


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)
