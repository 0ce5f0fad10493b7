"""Whether the first row of a file names the columns or is data like the rows below it.

Must never read a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from epochtop.engine.data.tables.cells.missing import is_missing_text
from epochtop.engine.data.tables.cells.numbers import format_of
from epochtop.engine.data.tables.csv_files.names import look_like_data

COMPARED_ROWS = 100
"""Rows that show whether a column holds numbers."""


def is_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds no names, judged by the `rows` below it.

    A text above a column of numbers is a name. A text that occurs again in its own column is a value. Without either,
    numbers above columns of numbers are values, unless they number the columns (0, 1, 2, … or years), or a text stands
    above a column of few values without being one of them. Copies of the first row tell nothing: joined files repeat their
    header.
    """
    columns = zip_longest(*(row for row in rows if row != first), fillvalue="")
    numbers, has_repeated, has_new = 0, False, False
    for cell, below in zip(map(str.strip, first), columns, strict=False):
        if is_missing_text(cell):
            continue
        values = [value.strip() for value in below if not is_missing_text(value)]
        form = format_of(values[:COMPARED_ROWS])
        if form is not None:
            if form.number(cell) is None:
                return False
            numbers += 1
            continue
        has_repeated |= cell in values
        has_new |= len(set(values)) <= len(values) // 2 and cell not in values
    return has_repeated or (numbers > 0 and not has_new and look_like_data(first))
