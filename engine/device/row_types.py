"""The types in which rows are stored, and the types in which a step receives them.

Rows of unsigned integers stay as small as they are, on the host and on the device, and rows of a memory-mapped file are
never copied as a whole. A step gets them as int64 or float32. Never reads a value back.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

INPUT_TYPES = {
    torch.uint16: torch.int64,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
    torch.float16: torch.float32,
    torch.float64: torch.float32,
}
"""The type of a step's input for every type of stored rows that differs from it."""
_SAME_SIZE = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
"""Types that torch can pick rows of, for those that it cannot."""


def rows_tensor(array: npt.NDArray[Any]) -> Tensor:
    """A tensor that shares the memory of stored rows, which may be a file that is mapped read-only."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to rows
        return torch.from_numpy(array)


def as_input(rows: Tensor, copied: bool = False) -> Tensor:
    """Rows in the type that a step receives; with `copied`, never the tensor itself."""
    return rows.to(INPUT_TYPES.get(rows.dtype, rows.dtype), copy=copied)


def on_device(rows: Tensor, device: torch.device) -> Tensor:
    """Stored rows on a device. Apple's GPUs have no float64, so there they get the type that a step receives first."""
    return (as_input(rows) if device.type == "mps" else rows).to(device)


def picked(rows: Tensor, numbers: Tensor) -> Tensor:
    """A copy of the rows with these numbers, in the type that a step receives."""
    if rows.dtype not in INPUT_TYPES:
        return rows.index_select(0, numbers)
    same_size = rows.view(_SAME_SIZE.get(rows.dtype, rows.dtype))
    return as_input(same_size.index_select(0, numbers).view(rows.dtype))


def input_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy of stored rows in the type that a step receives."""
    values: npt.NDArray[Any] = as_input(torch.from_numpy(np.array(array))).numpy()
    return values
