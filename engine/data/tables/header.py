"""The header of a CSV file: its delimiter, its column names, and the column that holds the labels.

Must never import the readers of tables, which all import it.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid

_DELIMITERS = ",;\t|"

_LONGEST_CELL = 40
"""Characters of a cell that a message quotes."""


@dataclass(frozen=True)
class Header:
    """The first row of a table."""

    path: Path
    delimiter: str
    names: tuple[str, ...]

    def label_index(self, target: str) -> int:
        """The index of the label column `target`. Raises Invalid if the table cannot be trained on."""
        path, names = self.path, self.names
        if all(map(is_number, names)):
            raise Invalid("dataset", f"{path}, row 1: the header must name the columns, but it holds only numbers")
        listing = _printable(", ".join(names[:12]) + (", …" if len(names) > 12 else ""))
        if not target:
            raise Invalid("target", f"set the label column of {path}; its columns are {listing}")
        if target not in names:
            raise Invalid("target", f"{path} has no column {target!r}; its columns are {listing}")
        self.check_names()
        if len(names) < 2:
            raise Invalid("dataset", f"{path} has only the column {target!r}; it needs a feature column too")
        return names.index(target)

    def check_names(self) -> None:
        """Raises Invalid if two columns have the same name."""
        duplicate = next((name for name in self.names if self.names.count(name) > 1), None)
        if duplicate is not None:
            raise Invalid("dataset", f"{self.path}, row 1: the column {duplicate!r} appears twice; rename one of them")


def parse_header(path: Path, line: str, field: str = "dataset") -> Header:
    """The header in the first line of `path`. The delimiter is the most frequent of `, ; tab |`. Raises Invalid."""
    if not line.strip():
        raise Invalid(field, f"{path} is empty; it needs a header row with the column names")
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        names = tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter)))
    except csv.Error as error:
        raise Invalid(field, f"{path}, row 1: {error}") from None
    return Header(path, delimiter, names)


def is_number(text: str) -> bool:
    """Whether Python reads `text` as a number; `nan` and `inf` are numbers."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_finite(text: str) -> bool:
    """Whether Python reads `text` as a finite number."""
    return is_number(text) and math.isfinite(float(text))


def quoted(text: str) -> str:
    """A cell as a message quotes it, shortened to 40 characters."""
    return repr(text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)
