"""CIFAR-10's Python batches: pickles, read by an unpickler that accepts only arrays of bytes and runs no code.

The pickle does not even call numpy: stand-ins record the parts of an array, and the array is built from them afterwards.
Never imports torch.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.protocol.spec import Invalid

FOLDER = "cifar-10-batches-py"
TRAIN, TEST = tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch"
IMAGE = (3, 32, 32)


class _Type:
    """Stand-in for `numpy.dtype`; `text` is its specification, such as `u1`."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.text = text

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and the like, which have no meaning for bytes."""


class _Array:
    """Stand-in for `numpy.ndarray`: its shape, type and bytes."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def read(self) -> npt.NDArray[np.uint8]:
        """The array, in C order. Raises ValueError unless it holds bytes."""
        _, shape, kind, fortran, content = self.state
        if not isinstance(kind, _Type) or kind.text not in ("u1", b"u1", "|u1", b"|u1") or fortran:
            raise ValueError("its data is not an array of bytes")
        if len(content) != math.prod(shape):
            raise ValueError(f"it should hold {math.prod(shape):,} bytes but holds {len(content):,}")
        return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape)


_ACCEPTED: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _ACCEPTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, but only arrays are accepted")
        return _ACCEPTED[module, name]


def cifar_images(folder: Path, classes: tuple[str, ...]) -> RawDataset | None:
    """The images of the batches in `folder`, with the test batch; None if there is no batch. Raises Invalid."""
    if not (folder / TRAIN[0]).is_file():
        return None
    train = [read_batch(folder / name, len(classes)) for name in TRAIN]
    test = read_batch(folder / TEST, len(classes))
    return RawDataset(
        kind="image",
        x=np.concatenate([x for x, _ in train]),
        y=np.concatenate([y for _, y in train]),
        loss="cross_entropy",
        classes=classes,
        image=IMAGE,
        test=test,
        notes=(f"read from {folder}",),
    )


def read_batch(path: Path, classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images uint8 (rows, 3, 32, 32) and labels int64 (rows,) of one batch. Raises Invalid, naming the file."""
    try:
        with open(path, "rb") as file:
            batch = _Reader(file, encoding="bytes").load()
        x = batch[b"data"].read().reshape(-1, *IMAGE)
        y = np.array(batch[b"labels"], dtype=np.int64)
    except FileNotFoundError:
        raise Invalid("dataset", f"{path.parent} lacks {path.name}; unpack the complete archive again") from None
    except Exception as error:  # a damaged pickle may raise anything; see the documentation of pickle.Unpickler
        raise Invalid("dataset", f"{path} is not a CIFAR-10 batch: {error or type(error).__name__}") from None
    if len(x) != len(y) or not len(y) or y.min() < 0 or y.max() >= classes:
        raise Invalid(
            "dataset", f"{path} is damaged: its labels do not match its {len(x)} images; unpack the archive again"
        )
    return x, y
