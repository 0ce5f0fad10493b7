"""New rows of a table made ready for a model that was trained on others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.data.scaling import Floats, Scaling
from epochtop.engine.protocol.spec import Invalid


def prepare(preparation: Preparation, columns: Sequence[str], rows: npt.NDArray[Any]) -> Floats:
    """Raw `rows` (rows, columns) with named columns as model input, float32 (rows, features), bit for bit as in training.

    Columns are picked by name, in any order; those that the model does not know are left out. Raises Invalid where
    one is missing or twice there, or a value is no number that float32 can hold.
    """
    if preparation.kind != "table":
        raise Invalid("", f"the model was trained on {preparation.kind} rows, not on a table")
    picked = rows[:, _places(preparation.columns, columns)]
    made = Scaling.of(preparation)(picked)
    if not np.isfinite(made).all():
        row, place = (int(number) for number in np.argwhere(~np.isfinite(made))[0])
        value, name = picked[row, place], preparation.columns[place]
        raise Invalid("", f"row {row + 1}, column {name!r}: {value:g} is no number that the model can take")
    return made


def _places(wanted: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Where each wanted column is. Raises Invalid."""
    counts = Counter(columns)
    missing = [name for name in wanted if not counts[name]]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise Invalid("", f"the model needs {len(wanted)} columns; missing: {names}")
    twice = [name for name in wanted if counts[name] > 1]
    if twice:
        raise Invalid("", f"the column {twice[0]!r} is there twice; give each its own name")
    place = {name: number for number, name in enumerate(columns)}
    return [place[name] for name in wanted]
