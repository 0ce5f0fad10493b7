"""The header of a CSV file: its delimiter, its column names, and the column that holds the labels.

Must never import the readers of tables, which all import it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from epochtop.engine.data.number_text import is_number
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
            advice = "; row 1 looks like data, so the file may have no header" if self.looks_like_data else ""
            raise Invalid("target", f"{path} has no column {target!r}; its columns are {listing}{advice}")
        self.check_names()
        if len(names) < 2:
            raise Invalid("dataset", f"{path} has only the column {target!r}; it needs a feature column too")
        return names.index(target)

    def check_names(self) -> None:
        """Raises Invalid if two columns have the same name."""
        duplicate = next((name for name in self.names if self.names.count(name) > 1), None)
        if duplicate is not None:
            advice = "add a header row, row 1 looks like data" if self.looks_like_data else "rename one of them"
            raise Invalid("dataset", f"{self.path}, row 1: the column {duplicate!r} appears twice; {advice}")

    @property
    def looks_like_data(self) -> bool:
        """Whether names are numbers, and not those of numbered columns: 0, 1, 2, … or years."""
        numbers = [float(name) for name in self.names if is_number(name)]
        steps = {after - before for before, after in pairwise(numbers)} or {1.0}
        numbered = steps == {1.0} or (len(numbers) > 2 and len(steps) == 1 and 0.0 not in steps)
        is_lone = len(numbers) == 1 and numbers[0] not in (0.0, 1.0)
        return bool(numbers) and (is_lone or not numbered or not all(map(float.is_integer, numbers)))

    def notes(self) -> tuple[str, ...]:
        """A warning if the header looks like a row of data, because it is not trained on."""
        if not self.looks_like_data:
            return ()
        row = _printable(", ".join(self.names[:6]) + (", …" if len(self.names) > 6 else ""))
        return (f"row 1 is read as the header but looks like data ({row}); if it is a row, add a header above it",)


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


def quoted(text: str) -> str:
    """A cell as a message quotes it, shortened to 40 characters."""
    return repr(text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)
