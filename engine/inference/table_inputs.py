"""New rows of numbers as input of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.new_rows import check_names, rows_of_numbers
from epochtop.engine.data.dataset import Preparation
from epochtop.engine.data.scaling import Floats
from epochtop.engine.protocol.spec import Invalid


def table_inputs(preparation: Preparation, columns: Sequence[str], rows: npt.NDArray[Any]) -> Floats:
    """Raw `rows`, (rows, columns), with named columns as model input, float32 (rows, inputs), bit for bit as in training.

    Columns are selected by name, in any order; others are ignored. NaN is a missing value. Raises Invalid if a column is
    missing or appears twice, or if the model cannot take a value.
    """
    if preparation.kind != "table":
        raise Invalid("", f"the model was trained on {preparation.kind} rows, not on a table")
    check_names(preparation.columns, columns)
    place = {name: number for number, name in enumerate(columns)}
    new = rows_of_numbers(preparation, np.asarray(rows)[:, [place[name] for name in preparation.columns]])
    if new.problems:
        row = min(new.problems)
        raise Invalid("", f"row {row + 1}, column {new.problems[row]}")
    return new.x
