"""Tables of several files with the same columns, one below the other.

Must never read a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.tables.column import Column, NumberColumn, Table, TextColumn, TimeColumn, values_of


def differing_columns(tables: Sequence[Table]) -> set[str]:
    """Names of the columns that are numbers in one table and texts or times in another."""
    kinds = [tuple(type(column) for column in table.columns) for table in tables]
    places = range(len(tables[0].columns))
    return {tables[0].columns[place].name for place in places if len({row[place] for row in kinds}) > 1}


def joined_tables(source: str, tables: Sequence[Table]) -> Table:
    """The rows of all tables, whose columns have the same names and types. `lines` are those of each file."""
    first = tables[0]
    matrices = [table.numbers for table in tables if table.numbers is not None]
    is_whole = len(matrices) == len(tables) and len({table.number_names for table in tables}) == 1
    numbers = np.concatenate(matrices) if is_whole else None
    columns = [
        _joined([table.columns[place] for table in tables], tables, numbers, first.number_names)
        for place in range(len(first.columns))
    ]
    return Table(
        source=source,
        columns=tuple(columns),
        lines=np.concatenate([np.asarray(table.lines, dtype=np.int64) for table in tables]),
        unit=first.unit,
        numbers=numbers,
        number_names=first.number_names if is_whole else (),
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
        parts=tuple((table.source, len(table)) for table in tables),
    )


def _joined(
    parts: Sequence[Column], tables: Sequence[Table], numbers: npt.NDArray[np.generic] | None, names: Sequence[str]
) -> Column:
    name = parts[0].name
    if isinstance(parts[0], TextColumn):
        return _joined_texts([part for part in parts if isinstance(part, TextColumn)])
    if isinstance(parts[0], TimeColumn):
        return TimeColumn(name, np.concatenate([values_of(part) for part in parts]))
    unreadable, row = dict[int, str](), 0
    for part, table in zip(parts, tables, strict=True):
        cells = part.unreadable if isinstance(part, NumberColumn) else {}
        unreadable.update((row + place, text) for place, text in cells.items())
        row += len(table)
    if numbers is not None and name in names:
        return NumberColumn(name, numbers[:, list(names).index(name)], unreadable)
    return NumberColumn(name, np.concatenate([values_of(part) for part in parts]), unreadable)


def _joined_texts(parts: Sequence[TextColumn]) -> TextColumn:
    code_of: dict[str, int] = {}
    codes, numbers = [], dict[str, float]()
    for part in parts:
        places = np.array([code_of.setdefault(text, len(code_of)) for text in part.texts] + [-1], dtype=np.int32)
        codes.append(places[part.codes])
        if part.numbers is not None:
            numbers.update(zip(part.texts, part.numbers.tolist(), strict=True))
    is_numeric = all(part.numbers is not None for part in parts)
    values = np.array([numbers[text] for text in code_of]) if is_numeric else None
    return TextColumn(parts[0].name, np.concatenate(codes), tuple(code_of), values)
