"""Encoding of raw rows: from one number per column to the inputs of the model, block by block.

A raw value is a number, the index of a category, or seconds since 1970; NaN is missing and -1 an unknown category. What is
not known is not a category: all its inputs are 0, or its embedding is the one with index 0. Equals scikit-learn's
ColumnTransformer with SimpleImputer and OneHotEncoder(handle_unknown="ignore"). Never fits anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.times import CYCLES, part_of
from epochtop.engine.data.dataset import ColumnEncoding

Raw = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Encoder:
    """Encodings of all columns, ready to be applied to blocks of rows."""

    encodings: tuple[ColumnEncoding, ...]
    lookups: Mapping[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Index of a category in its encoding by its index in the raw rows, by column; columns without one agree already."""

    @property
    def inputs(self) -> int:
        """Inputs per row."""
        return sum(encoding.inputs for encoding in self.encodings)

    @property
    def scaled(self) -> npt.NDArray[np.bool_]:
        """Which inputs are scaled (inputs,)."""
        return scaled_inputs(self.encodings)

    def __call__(self, raw: Raw) -> Floats:
        """Encode raw rows (rows, columns) to float64 (rows, inputs)."""
        result = np.zeros((len(raw), self.inputs))
        start = 0
        for column, encoding in enumerate(self.encodings):
            self._encode(result[:, start : start + encoding.inputs], raw, column)
            start += encoding.inputs
        return result

    def scaled_values(self, raw: Raw) -> Floats:
        """Only the inputs that are scaled (rows, scaled inputs), for which no category is encoded."""
        parts = [np.empty((len(raw), 0))]
        for column, encoding in enumerate(self.encodings):
            is_scaled = scaled_inputs([encoding])
            if is_scaled.any():
                inputs = np.zeros((len(raw), encoding.inputs))
                self._encode(inputs, raw, column)
                parts.append(inputs[:, is_scaled])
        return np.concatenate(parts, axis=1)

    def _encode(self, inputs: Floats, raw: Raw, column: int) -> None:
        """Write the inputs of one column (rows, inputs), which are 0."""
        encoding, values = self.encodings[column], self._values(raw, column)
        missing = np.isnan(values)
        if encoding.indicator:
            inputs[:, -1] = missing
        _ENCODE[encoding.kind](inputs, np.where(missing, encoding.fill, values), encoding)

    def _values(self, raw: Raw, column: int) -> Floats:
        values = raw[:, column].astype(np.float64)
        if column not in self.lookups:
            return values
        known = np.flatnonzero(values >= 0)
        values[known] = self.lookups[column][values[known].astype(np.int64)]
        return values


def _number(inputs: Floats, values: Floats, _: ColumnEncoding) -> None:
    inputs[:, 0] = values


def _category(inputs: Floats, values: Floats, encoding: ColumnEncoding) -> None:
    if encoding.embedding:
        inputs[:, 0] = values + 1
        return
    known = np.flatnonzero(values >= 0)
    inputs[known, values[known].astype(np.int64)] = 1.0


def _time(inputs: Floats, values: Floats, encoding: ColumnEncoding) -> None:
    place = 0
    for part in encoding.parts:
        numbers = part_of(values, part, encoding.origin)
        if part not in CYCLES:
            inputs[:, place] = numbers
            place += 1
            continue
        angles = numbers * (2 * np.pi / CYCLES[part])
        inputs[:, place], inputs[:, place + 1] = np.sin(angles), np.cos(angles)
        place += 2


_ENCODE = {"number": _number, "category": _category, "time": _time}


def scaled_inputs(encodings: Sequence[ColumnEncoding]) -> npt.NDArray[np.bool_]:
    """Which inputs are scaled (inputs,): numbers, days and years, but no categories, cycles and indicators."""
    flags: list[bool] = []
    for encoding in encodings:
        first = len(flags)
        if encoding.kind == "number":
            flags.append(True)
        elif encoding.kind == "time":
            for part in encoding.parts:
                flags += [False, False] if part in CYCLES else [True]
        flags += [False] * (encoding.inputs - (len(flags) - first))
    return np.array(flags, dtype=bool)


def input_names(columns: Sequence[str], encodings: Sequence[ColumnEncoding]) -> tuple[str, ...]:
    """The column of each input, for messages."""
    if not encodings:
        return tuple(columns)
    return tuple(name for name, encoding in zip(columns, encodings, strict=True) for _ in range(encoding.inputs))


def embedded_inputs(encodings: Sequence[ColumnEncoding]) -> dict[int, tuple[int, int]]:
    """Number of categories and size of the vectors of every embedding, by the position of its input."""
    result: dict[int, tuple[int, int]] = {}
    start = 0
    for encoding in encodings:
        if encoding.embedding:
            result[start] = (len(encoding.categories), encoding.embedding)
        start += encoding.inputs
    return result
