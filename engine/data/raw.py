"""A dataset as it was read, before it is split and scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from epochtop.engine.data.dataset import Kind, LossName

Say = Callable[[str], None]
"""Takes a line on how the reading of a dataset goes on."""


def quiet(_: str) -> None:
    """A `Say` for where nobody listens."""


@dataclass(frozen=True)
class Raw:
    """Examples with labels, on the host; arrays may be memory-mapped files.

    table: x float64 or float32 (rows, features) · image: x uint8 (rows, channels, height, width) · text: x and y uint8
    or int32 (rows, context). y of tables and images: int64 codes of `classes`, or floats (rows,).
    """

    kind: Kind
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    loss: LossName
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    target: str = ""
    image: tuple[int, int, int] | None = None
    test: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    """Test rows that the dataset brings itself, like `x` and `y`; None lets `test_fraction` decide."""
    vocabulary: str = ""
    notes: tuple[str, ...] = ()
