"""Scaling of a table's features: fitted by scikit-learn on the training rows, applied block by block.

Blocks avoid a float64 copy of a large table. The arithmetic is that of scikit-learn's `transform`, in float64 and then
rounded to float32, so that rows prepared for a prediction equal the training rows. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.data.permutation import ShuffledSpan
from epochtop.engine.protocol.spec import Invalid

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64] | slice | ShuffledSpan
"""Selection of rows: their numbers, a slice, or numbers that are computed when they are needed."""

ALL_ROWS = slice(None)
BLOCK_VALUES = 2**18
"""Numbers per block: few enough for the processor's cache. A smaller table is fitted in one go."""


def blocks(array: npt.NDArray[Any], index: Index, width: int = 0) -> Iterator[npt.NDArray[Any]]:
    """The selected rows of `array`, about BLOCK_VALUES numbers at a time; `width` numbers per row unless it is 0."""
    rows = max(1, BLOCK_VALUES // max(1, width or array[0].size)) if len(array) else 1
    if isinstance(index, slice):
        selected = array[index]
        yield from (selected[start : start + rows] for start in range(0, len(selected), rows))
    else:
        yield from (array[index[start : start + rows]] for start in range(0, len(index), rows))


def selected(array: npt.NDArray[Any], index: Index) -> npt.NDArray[Any]:
    """The selected rows of `array`; a copy unless `index` is a slice."""
    if not isinstance(index, ShuffledSpan):
        return array[index]
    result = np.empty((len(index), *array.shape[1:]), array.dtype)
    start = 0
    for block in blocks(array, index):
        result[start : start + len(block)] = block
        start += len(block)
    return result


@dataclass(frozen=True)
class Scaling:
    """A fitted scaling; `offset` and `factor` are float64 (features,), explained in Preparation."""

    kind: Literal["minmax", "standard", "none"]
    offset: npt.NDArray[np.float64]
    factor: npt.NDArray[np.float64]
    rounded: bool = False

    @classmethod
    def of(cls, preparation: Preparation) -> Scaling:
        """The scaling that a run used."""
        offset, factor = np.array(preparation.offset, np.float64), np.array(preparation.factor, np.float64)
        return cls(preparation.scaling, offset, factor, preparation.rounded)

    def __call__(self, raw: npt.NDArray[Any]) -> Floats:
        """Scale a block of raw rows to float32; values that float32 cannot hold become infinite or NaN."""
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


class RowEncoder(Protocol):
    """A function from a block of raw rows to inputs of the model (rows, inputs)."""

    @property
    def inputs(self) -> int:
        """Inputs per row."""
        ...

    @property
    def scaled(self) -> npt.NDArray[np.bool_]:
        """Which inputs are scaled (inputs,)."""
        ...

    def __call__(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Encode a block."""
        ...

    def scaled_values(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The inputs of a block that are scaled (rows, scaled inputs)."""
        ...


def fit_scaling(
    x: npt.NDArray[Any],
    index: Index,
    kind: Literal["minmax", "standard", "none"],
    encoder: RowEncoder | None = None,
    is_rounded: bool = False,
) -> Scaling:
    """Fit a scaling on the selected rows of `x`; a table of one block gives exactly scikit-learn's `fit`.

    The features of a series (rows, time, features) are fitted over all time steps. An `encoder` is applied first; inputs that
    it excludes get an offset of 0 and a factor of 1. `is_rounded` says that float64 numbers were rounded to float32.
    """
    rounded = is_rounded or x.dtype == np.float32
    nothing = np.empty(0)
    if kind == "none":
        return Scaling(kind, nothing, nothing, rounded)
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    scaler = MinMaxScaler() if kind == "minmax" else StandardScaler()
    with np.errstate(all="ignore"):
        if encoder is None:
            for block in blocks(x, index):
                scaler.partial_fit(block.reshape(-1, x.shape[-1]).astype(np.float64))
            return Scaling(kind, scaler.min_ if kind == "minmax" else scaler.mean_, scaler.scale_, rounded)
        offset, factor = np.zeros(encoder.inputs), np.ones(encoder.inputs)
        if not encoder.scaled.any():
            return Scaling(kind, offset, factor, rounded)
        for block in blocks(x, index, encoder.inputs):
            scaler.partial_fit(encoder.scaled_values(block))
    offset[encoder.scaled] = scaler.min_ if kind == "minmax" else scaler.mean_
    factor[encoder.scaled] = scaler.scale_
    return Scaling(kind, offset, factor, rounded)


def scale_rows(
    x: npt.NDArray[Any], index: Index, scaling: Scaling, columns: tuple[str, ...], encoder: RowEncoder | None = None
) -> Floats:
    """The selected rows of a table or of series, encoded and scaled, float32. Raises Invalid if float32 cannot hold a value.

    `columns` are the names of the features, which are the last dimension of `x` or of what the encoder makes of it.
    """
    rows = len(x[index]) if isinstance(index, slice) else len(index)
    width = 0 if encoder is None else encoder.inputs
    result = np.empty((rows, *x.shape[1:]) if encoder is None else (rows, width), dtype=np.float32)
    bad_scale = not (np.isfinite(scaling.factor).all() and np.isfinite(scaling.offset).all())
    start = 0
    for block in blocks(x, index, width):
        part = scaling(block if encoder is None else encoder(block))
        finite = np.isfinite(part)
        if bad_scale or not finite.all():
            finite &= np.isfinite(scaling.factor) & np.isfinite(scaling.offset) if scaling.kind != "none" else True
            name = columns[int(np.argwhere(~finite)[0][-1])]
            advice = "scale the features" if scaling.kind == "none" else "divide it by a power of ten"
            raise Invalid("scaling", f"column {name!r} has values that overflow float32; {advice}")
        result[start : start + len(part)] = part
        start += len(part)
    return result
