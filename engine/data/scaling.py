"""Scaling of a table's features: fitted by scikit-learn on the training rows, applied block by block.

Blocks keep a large table from being copied as float64. The arithmetic is that of scikit-learn's `transform`, in
float64 and then rounded to float32, so that rows prepared later equal those that were trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.protocol.spec import Invalid

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64] | slice

EVERY = slice(None)
BLOCK_VALUES = 2**18
"""Numbers in a block: few enough for a processor's cache; a table of no more is fitted at once."""


def blocks(array: npt.NDArray[Any], index: Index) -> Iterator[npt.NDArray[Any]]:
    """The rows of `array` that `index` picks, about BLOCK_VALUES numbers at a time."""
    rows = max(1, BLOCK_VALUES // max(1, array[0].size)) if len(array) else 1
    if isinstance(index, slice):
        picked = array[index]
        yield from (picked[start : start + rows] for start in range(0, len(picked), rows))
    else:
        yield from (array[index[start : start + rows]] for start in range(0, len(index), rows))


@dataclass(frozen=True)
class Scaling:
    """`offset` and `factor` are float64 (features,); see Preparation for what they mean."""

    kind: Literal["minmax", "standard", "none"]
    offset: npt.NDArray[np.float64]
    factor: npt.NDArray[np.float64]
    rounded: bool = False

    @classmethod
    def of(cls, preparation: Preparation) -> Scaling:
        """The scaling that a run was trained with."""
        offset, factor = np.array(preparation.offset, np.float64), np.array(preparation.factor, np.float64)
        return cls(preparation.scaling, offset, factor, preparation.rounded)

    def __call__(self, raw: npt.NDArray[Any]) -> Floats:
        """A block of raw rows as the model gets it; what float32 cannot hold is infinite or not a number there."""
        with np.errstate(all="ignore"):
            values = raw.astype(np.float32) if self.rounded else raw
            if self.kind == "none":
                return values.astype(np.float32)
            values = values.astype(np.float64)
            if self.kind == "minmax":
                values *= self.factor
                values += self.offset
            else:
                values -= self.offset
                values /= self.factor
            return values.astype(np.float32)


def fit(x: npt.NDArray[Any], index: Index, kind: Literal["minmax", "standard", "none"]) -> Scaling:
    """Fit on the rows of `x` that `index` picks; one block gives exactly what scikit-learn's `fit` gives."""
    rounded = x.dtype == np.float32
    nothing = np.empty(0)
    if kind == "none":
        return Scaling(kind, nothing, nothing, rounded)
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    scaler = MinMaxScaler() if kind == "minmax" else StandardScaler()
    with np.errstate(all="ignore"):
        for block in blocks(x, index):
            scaler.partial_fit(block.astype(np.float64))
    return Scaling(kind, scaler.min_ if kind == "minmax" else scaler.mean_, scaler.scale_, rounded)


def scaled(x: npt.NDArray[Any], index: Index, scaling: Scaling, columns: tuple[str, ...]) -> Floats:
    """The picked rows of `x`, scaled, float32 (rows, features). Raises Invalid where float32 cannot hold them."""
    picked = len(x[index]) if isinstance(index, slice) else len(index)
    made = np.empty((picked, x.shape[1]), dtype=np.float32)
    bad_scale = not (np.isfinite(scaling.factor).all() and np.isfinite(scaling.offset).all())
    start = 0
    for block in blocks(x, index):
        part = scaling(block)
        finite = np.isfinite(part)
        if bad_scale or not finite.all():
            finite &= np.isfinite(scaling.factor) & np.isfinite(scaling.offset) if scaling.kind != "none" else True
            name = columns[int(np.argwhere(~finite)[0][1])]
            advice = "scale the features" if scaling.kind == "none" else "divide it by a power of ten"
            raise Invalid("scaling", f"column {name!r} has values that float32 cannot hold; {advice}")
        made[start : start + len(part)] = part
        start += len(part)
    return made
