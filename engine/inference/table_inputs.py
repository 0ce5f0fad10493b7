"""New rows of a table as input of a trained model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.data.scaling import Floats, Scaling
from epochtop.engine.protocol.spec import Invalid


def table_inputs(preparation: Preparation, columns: Sequence[str], rows: npt.NDArray[Any]) -> Floats:
    """Raw `rows`, (rows, columns), with named columns as model input, float32 (rows, features), bit for bit as in training.

    Columns are selected by name, in any order; others are ignored. Raises Invalid if a column is missing or appears twice,
    or if float32 cannot hold a value.
    """
    if preparation.kind != "table":
        raise Invalid("", f"the model was trained on {preparation.kind} rows, not on a table")
    return scaled_rows(preparation, rows[:, _places(preparation.columns, columns)])


def scaled_rows(preparation: Preparation, raw: npt.NDArray[Any]) -> Floats:
    """Raw rows of a table or of series, whose last dimension are the features, scaled as in training. Raises Invalid."""
    scaled = Scaling.of(preparation)(raw)
    if not np.isfinite(scaled).all():
        row, *place = (int(number) for number in np.argwhere(~np.isfinite(scaled))[0])
        value, name = raw[(row, *place)], preparation.columns[place[-1]]
        raise Invalid("", f"row {row + 1}, column {name!r}: {value:g} is not a number that the model can take")
    return scaled


def _places(names: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Index of every named column. Raises Invalid."""
    counts = Counter(columns)
    missing = [name for name in names if not counts[name]]
    if missing:
        listed = ", ".join(repr(name) for name in missing)
        raise Invalid("", f"the model needs {len(names)} columns; missing: {listed}")
    twice = [name for name in names if counts[name] > 1]
    if twice:
        raise Invalid("", f"the column {twice[0]!r} appears twice; rename one of them")
    place = {name: number for number, name in enumerate(columns)}
    return [place[name] for name in names]
