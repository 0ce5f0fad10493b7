"""Columns of Python objects, as JSON and databases hold them. Never reads a file or imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from epochtop.engine.data.number_text import is_padded
from epochtop.engine.data.tables.cells.typed import typed
from epochtop.engine.data.tables.column import CellType, Column, NumberColumn, TextColumn


def column_of_objects(name: str, values: Sequence[Any], kind: CellType) -> Column:
    """A column of numbers, booleans, texts, times or nested values; None and NaN are missing."""
    present = [value for value in values if value is not None]
    if kind != "text" and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return NumberColumn(name, _numbers(values, len(present)))
    if kind in ("any", "number") and len(present) == len(values) and all(isinstance(value, bool) for value in present):
        return NumberColumn(name, np.array(values, dtype=np.bool_))
    code_of: dict[str, int] = {}
    codes = [-1 if _is_none(value) else code_of.setdefault(_text(value), len(code_of)) for value in values]
    return typed_strings(TextColumn(name, np.array(codes, dtype=np.int32), tuple(code_of)), kind)


def typed_strings(column: TextColumn, kind: CellType) -> Column:
    """A column that a file stores as text, as `kind` asks for; `007` among its texts makes it text."""
    return typed(column, "text" if kind == "any" and any(map(is_padded, column.texts)) else kind)


def _numbers(values: Sequence[Any], present: int) -> np.ndarray[Any, np.dtype[Any]]:
    is_whole = present == len(values) and all(isinstance(value, int) and abs(value) < 2**63 for value in values)
    if is_whole and values:
        return np.array(values, dtype=np.int64)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else str(value)
