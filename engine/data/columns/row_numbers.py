"""Columns that only number the rows of a table: an unnamed index and numbers called an id are left out, another counter is
reported if it gives the class away.

Must never read a file or import torch.
"""

from __future__ import annotations

import dataclasses
import re
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset

_UNNAMED = re.compile(r"|Unnamed: \d+")
"""Names of columns without one, as pandas and our reader of CSV files write them."""
_OLD_INDEX = re.compile(r"Unnamed: 0(\.\d+)*(_[xy])?")
"""Names of an index that pandas has saved and read several times, or of two tables that it has joined."""
_ID = re.compile(
    r"(?i:id|idx|index|row|nr|no|#|row[ _.-]?(id|idx|index|nr|no|num|number))|.*[ _.-](?i:id)|.*[a-z](Id|ID)"
)
"""Names of identifiers: a few whole names, and names that end in id as a word of its own (`user_id`, `PassengerId`)."""
_FIRST_ROWS = 1000
"""Rows that are looked at before a whole column is."""


def check_row_numbers(raw: RawDataset) -> RawDataset:
    """The dataset without unnamed columns of row numbers, with notes on them and on counters among the features."""
    if raw.kind != "table":
        return raw
    raw = _without_index(raw)
    return dataclasses.replace(raw, notes=(*raw.notes, *_counter_notes(raw)))


def is_identifier(name: str, values: npt.NDArray[Any]) -> bool:
    """Whether a column of numbers is called an id, and holds another whole number in every row."""
    return _ID.fullmatch(name.strip()) is not None and len(values) > 1 and _is_numbering(values)


def _without_index(raw: RawDataset) -> RawDataset:
    first = [*takewhile(lambda number: _UNNAMED.fullmatch(raw.columns[number]), range(len(raw.columns)))]
    likely = [number for number, name in enumerate(raw.columns) if number in first or _OLD_INDEX.fullmatch(name)]
    indices = [number for number in likely if _is_index(raw.x[:, number])]
    kept = [number for number in range(len(raw.columns)) if number not in indices]
    if not indices or not kept:
        return raw
    names = [raw.columns[number] for number in indices]
    facts = tuple(
        msgspec.structs.replace(fact, kind="identifier", treatment="left out: row numbers")
        if fact.name in names
        else fact
        for fact in raw.column_facts
    )
    are_first = indices == [*range(len(indices))]  # then the rest is a view
    return dataclasses.replace(
        raw,
        x=raw.x[:, len(indices) :] if are_first else raw.x[:, kept],
        columns=tuple(raw.columns[number] for number in kept),
        encodings=tuple(raw.encodings[number] for number in kept if raw.encodings),
        column_facts=facts,
        notes=(
            *raw.notes,
            *(f"the unnamed column {name!r} holds row numbers; it is left out of the features" for name in names),
        ),
    )


def _is_index(values: npt.NDArray[Any]) -> bool:
    """Whether the values are row numbers, or those of several tables, one below the other."""
    if not bool(np.isfinite(values).all()):
        return False
    if _is_numbering(values):
        return True
    steps = np.diff(values.astype(np.float64))
    restarts = values[1:][steps != 1]
    return (
        len(values) > 2 * (len(restarts) + 1) and float(values[0]) in (0.0, 1.0) and bool((restarts == values[0]).all())
    )


def _is_numbering(values: npt.NDArray[Any]) -> bool:
    """Whether the values are row numbers, in any order: distinct whole numbers from 0 on.

    float32 merges neighbors from 2**24 on, so values that rise by one per row on average count as well.
    """
    if values.dtype.kind == "b" or not bool((values == np.floor(values)).all()) or float(values.min()) < 0:
        return False
    rises = bool((values[1:] >= values[:-1]).all()) and float(values[-1]) - float(values[0]) >= len(values) - 1
    return rises or len(np.unique(values)) == len(values)


def _counter_notes(raw: RawDataset) -> list[str]:
    """A warning for every feature that counts the rows of a table in which every class is one block of rows."""
    changes = int(np.count_nonzero(raw.y[1:] != raw.y[:-1])) if raw.classes else 0
    if not raw.classes or changes != len(raw.classes) - 1:
        return []
    return [
        f"column {name!r} counts the rows, and the rows are sorted by class, so it gives the class away; remove it unless "
        "new rows have it too"
        for number, name in enumerate(raw.columns)
        if (not raw.encodings or raw.encodings[number].kind == "number") and _is_counter(raw.x[:, number])
    ]


def _is_counter(values: npt.NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore"):
        return all(_is_monotone(part) for part in (values[:_FIRST_ROWS], values))


def _is_monotone(values: npt.NDArray[Any]) -> bool:
    """Whether whole numbers rise, or fall, from row to row."""
    if not bool((values == np.floor(values)).all()):
        return False
    earlier, later = values[:-1], values[1:]
    return bool((later > earlier).all() or (later < earlier).all())
