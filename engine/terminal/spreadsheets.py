"""Cells of CSV files that a spreadsheet would execute as a formula.

A foreign table may have cells such as `=HYPERLINK(...)`. Excel, LibreOffice and Google Sheets execute them when the
file is opened. Imports the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
FIRST_CHARACTERS = ("=", "+", "-", "@", "\t", "\r")
"""Cells that begin with one of these are formulas; spreadsheets ignore a tab or a carriage return before one."""


def escaped(cell: object) -> object:
    """The cell, with an apostrophe in front if a spreadsheet would execute it. Numbers such as -1.5 stay as they are."""
    if not isinstance(cell, str) or not cell.startswith(FIRST_CHARACTERS) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def row_filter(excel_safe: bool) -> Callable[[Iterable[object]], list[object]]:
    """What to do with the cells of each row: escape them if `excel_safe`, else leave them."""
    return (lambda row: [escaped(cell) for cell in row]) if excel_safe else list
