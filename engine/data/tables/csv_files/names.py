"""The names of the columns of a file: from its header, numbered if they repeat, or made if there is none.

Must never read a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Protocol

from epochtop.engine.data.number_text import is_number
from epochtop.engine.protocol.spec import Invalid


class _Row(Protocol):
    @property
    def cells(self) -> list[str]: ...


@dataclass(frozen=True)
class Names:
    """Names of all columns of a file, each of them once."""

    path: Path
    names: tuple[str, ...]
    line: int = 0
    """The line of the header; 0 if there is none."""
    repeated: tuple[str, ...] = ()
    """Names that the header has more than once."""
    notes: tuple[str, ...] = ()

    @property
    def looks_like_data(self) -> bool:
        """Whether names are numbers, and not those of numbered columns: 0, 1, 2, … or years."""
        return bool(self.line) and look_like_data(self.names)

    def check(self) -> None:
        """Raise Invalid if there is a header and it cannot be one."""
        if self.line and all(map(is_number, self.names)):
            raise Invalid(
                "dataset",
                f"{self.path}, line {self.line}: the header must name the columns, but it holds only numbers; "
                "if it is a row, set header to no",
            )
        if self.repeated and self.looks_like_data:
            raise Invalid(
                "dataset",
                f"{self.path}, line {self.line}: the column {self.repeated[0]!r} appears twice, and the line looks like "
                "data; add a header row or set header to no",
            )


def numbered_names(path: Path, columns: int) -> Names:
    """Names for the columns of a file without a header: c1, c2, …"""
    return Names(path, tuple(f"c{number}" for number in range(1, columns + 1)))


def header_names(path: Path, line: int, cells: Sequence[str], rows: Sequence[_Row]) -> Names:
    """The names in the header at `line`, above `rows`.

    Leaves out empty names at the end that no row has a cell for. A header that lacks one name, as R writes it, begins with
    an unnamed column.
    """
    names = [" ".join(cell.split()) for cell in cells]
    used = max((_filled(row.cells) for row in rows), default=len(names))
    while len(names) > max(used, 1) and not names[-1]:
        names.pop()
    if rows and all(len(row.cells) == len(names) + 1 and row.cells[-1].strip() for row in rows):
        names.insert(0, "")
    unique, repeated = _unique(names)
    return Names(path, unique, line, repeated, _notes(Names(path, unique, line, repeated)))


def _filled(cells: Sequence[str]) -> int:
    """The number of cells up to the last one that is not empty."""
    return next((place for place in range(len(cells), 0, -1) if cells[place - 1].strip()), 0)


def _unique(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names with a number after each repetition, and the names that repeat. Unnamed columns are named by place."""
    unique, repeated, originals = dict[str, None](), dict[str, None](), set(names)
    for place, name in enumerate(names):
        chosen = name if name or not place else f"Unnamed: {place}"
        if chosen in unique:
            repeated[name] = None
            numbered = (f"{name}.{number}" for number in count(1))
            chosen = next(other for other in numbered if other not in unique and other not in originals)
        unique[chosen] = None
    return tuple(unique), tuple(repeated)


def _notes(names: Names) -> tuple[str, ...]:
    notes = []
    if names.looks_like_data:
        row = _printable(", ".join(names.names[:6]) + (", …" if len(names.names) > 6 else ""))
        notes.append(
            f"line {names.line} is read as the header but looks like data ({row}); if it is a row, set header to no"
        )
    if names.repeated:
        listed = ", ".join(map(repr, names.repeated[:6]))
        notes.append(f"the header repeats {listed}; the repeated columns are numbered: {names.repeated[0]}.1, …")
    return tuple(notes)


def look_like_data(names: Sequence[str]) -> bool:
    """Whether some names are numbers, and not those of numbered columns: 0, 1, 2, … or years."""
    numbers = [float(name) for name in names if is_number(name)]
    steps = {after - before for before, after in pairwise(numbers)} or {1.0}
    numbered = steps == {1.0} or (len(numbers) > 2 and len(steps) == 1 and 0.0 not in steps)
    is_lone = len(numbers) == 1 and numbers[0] not in (0.0, 1.0)
    return bool(numbers) and (is_lone or not numbered or not all(map(float.is_integer, numbers)))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)
