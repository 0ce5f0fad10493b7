"""New rows of arrays, from `.npz` and `.npy` files, as input of a trained model.

Must never unpickle anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.arrays.features import Features, features_of
from epochtop.engine.data.arrays.files import read_rows
from epochtop.engine.data.columns.new_rows import NewRows, rows_of_numbers
from epochtop.engine.data.dataset import Preparation
from epochtop.engine.data.scaling import Scaling
from epochtop.engine.protocol.spec import Invalid

ENDINGS = (".npz", ".npy")


@dataclass(frozen=True)
class NumberedRows:
    """Rows of an array as the rows of a table: their numbers from 0 on."""

    path: Path
    count: int
    names: tuple[str, ...] = ("row",)
    delimiter: str = ","
    has_header: bool = True
    has_decimal_comma: bool = False

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row."""
        return ([str(row)] for row in range(self.count))


def is_array_file(path: Path) -> bool:
    """Whether predictions for this file are predictions for the rows of an array."""
    return path.suffix.lower() in ENDINGS


def array_inputs(preparation: Preparation, path: Path) -> NewRows:
    """The rows in the file as model input, as in training. Raises Invalid if their shape or type is another one."""
    if preparation.kind not in ("table", "series", "image"):
        raise Invalid("", f"the run was trained on texts, but {path} holds arrays; give predict a CSV file")
    like = Features(preparation.kind, np.empty(0))
    rows = features_of(str(path), read_rows(path), "mlp", like)
    x, expected = rows.x, _expected(preparation)
    if rows.kind != preparation.kind or x.shape[1:] != expected:
        raise Invalid("", f"{path} has rows of the shape {x.shape[1:]}, but the run was trained on {expected}")
    if preparation.kind == "table":
        return rows_of_numbers(preparation, x)
    if preparation.kind == "series":
        return series_rows(preparation, x)
    if preparation.pixel_max == 1.0:
        return NewRows(x.astype(np.float32))
    if x.dtype != np.uint8:
        raise Invalid("", f"{path} has pixels of type {x.dtype}, but the run was trained on bytes from 0 to 255")
    return NewRows(x)


def series_rows(preparation: Preparation, raw: npt.NDArray[Any]) -> NewRows:
    """Model input of raw series (rows, time, features), scaled as in training."""
    x = Scaling.of(preparation)(raw)
    problems: dict[int, str] = {}
    for row, step, feature in np.argwhere(~np.isfinite(x)):
        value = raw[row, step, feature]
        problems.setdefault(
            int(row), f"time step {step}, feature {feature}: {value:g} is not a number the model can take"
        )
    x[list(problems)] = 0
    return NewRows(x, problems)


def _expected(preparation: Preparation) -> tuple[int, ...]:
    """Shape of a row."""
    if preparation.kind == "table":
        return (len(preparation.columns),)
    return (preparation.image if preparation.kind == "image" else preparation.series) or ()
