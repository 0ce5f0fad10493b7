"""A model and data of the user's own: what a function in the user's file returns.

`--task PATH.py:FUNCTION` calls the function without arguments and trains the :class:`Task` that it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from epochtop.engine.data.dataset import Rows

Examples = tuple[Any, Any] | Dataset[Any]
"""A pair of rows and labels (tensors or arrays of one length), or a Dataset with `__len__` and `__getitem__`."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Task:
    """What is trained. Raises TypeError or ValueError, in the user's line, for what cannot be trained.

    The model has fresh weights; epochtop moves it and the rows to the device. Numbers of any size become float32, as the
    weights are. `loss` and each of `metrics` take the model's output and the labels of a batch and return one number,
    the mean over the batch's rows, as a tensor: without `.item()`, which would stop the device.
    """

    model: nn.Module
    train: Examples
    test: Examples | None = None
    """Rows held out to the end."""
    validation: Examples | None = None
    """Rows by which the best weights are judged; the test rows where there are none."""
    loss: Callable[[Any, Any], Tensor] = functional.cross_entropy
    metrics: Mapping[str, Callable[[Any, Any], Tensor]] = field(default_factory=dict)
    """By name; the first is the headline."""
    classes: Sequence[str] = ()
    """Names of the classes, by label."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"Task.model must be a torch.nn.Module, not {_kind(self.model)}")
        if not callable(self.loss):
            raise TypeError(f"Task.loss must be a function of (output, labels), not {_kind(self.loss)}")
        for part in ("train", "validation", "test"):
            _check_examples(part, getattr(self, part))
        self._check_metrics()
        if isinstance(self.classes, str) or not all(isinstance(name, str) for name in self.classes):
            raise TypeError("Task.classes must be a list of the names of the classes")

    def _check_metrics(self) -> None:
        if not isinstance(self.metrics, Mapping):
            raise TypeError(f"Task.metrics must be a dict of names and functions, not {_kind(self.metrics)}")
        for name, metric in self.metrics.items():
            if not (isinstance(name, str) and callable(metric)):
                raise TypeError(f"Task.metrics must map names to functions of (output, labels); {name!r} does not")

    def examples(self, part: Part) -> Rows | Dataset[Any]:
        """The rows of a part in memory, or the user's Dataset; no rows where the task has none."""
        given = getattr(self, part)
        if given is None:
            return Rows(x=np.empty((0, 1), np.float32), y=np.empty(0, np.float32))
        if isinstance(given, TensorDataset) and len(given.tensors) == 2:
            given = given.tensors
        if isinstance(given, Dataset):
            return given
        x, y = given
        return Rows(x=_array(x), y=_array(y))

    def batch(self, rows: int = 2) -> tuple[Any, Any]:
        """The first rows of the training part with their labels, as the model and the loss will get them."""
        part = self.examples("train")
        if isinstance(part, Rows):
            return torch.from_numpy(np.array(part.x[:rows])), torch.from_numpy(np.array(part.y[:rows]))
        from torch.utils.data import default_collate

        first = [part[at] for at in range(min(rows, len(part)))]  # type: ignore[arg-type]
        if not all(isinstance(row, list | tuple) and len(row) == 2 for row in first):
            raise TypeError(f"Task.train: an item of the Dataset must be a pair (x, y), not {_kind(first[0])}")
        x, y = default_collate(first)
        return x, y


def _kind(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _check_examples(part: str, given: Any) -> None:
    if given is None and part != "train":
        return
    where = f"Task.{part}"
    if isinstance(given, Dataset):
        if not hasattr(given, "__len__"):
            raise TypeError(f"{where}: the Dataset needs __len__, the number of its rows")
        rows = len(given)
    else:
        rows = _rows_of_pair(where, given)
    if not rows:
        raise ValueError(f"{where} has no rows")


def _rows_of_pair(where: str, given: Any) -> int:
    pair = isinstance(given, list | tuple) and len(given) == 2
    if not pair or not all(isinstance(part, Tensor | np.ndarray) and part.ndim for part in given):
        found = f"a {len(given)}-tuple of other things" if isinstance(given, list | tuple) else _kind(given)
        raise TypeError(f"{where} must be a pair (x, y) of tensors or arrays, or a Dataset, not {found}")
    x, y = given
    if len(x) != len(y):
        raise ValueError(f"{where} has {len(x)} rows and {len(y)} labels; it needs a label for each row")
    for values in given:
        if isinstance(values, np.ndarray) and values.dtype.kind not in "biuf":
            raise TypeError(f"{where} has an array of {values.dtype}; it must have numbers")
        if isinstance(values, Tensor) and values.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
            raise TypeError(f"{where} has a tensor of {values.dtype}; use float32")
    return len(x)


def _array(values: Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """On the host; floats of any size as float32, and unsigned integers that torch does not calculate with as int64."""
    array: npt.NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return np.ascontiguousarray(array, dtype=np.int64)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
