"""A custom task: the user's model and data, returned by a function in the user's file.

`--task PATH.py:FUNCTION` calls the function without arguments and trains the :class:`Task` that it returns. Never imports
the training loop.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device import generators
from epochtop.engine.device.row_types import input_array
from epochtop.engine.hardware.memory_maps import is_mapped_file
from epochtop.engine.models.attributes import restored_attributes
from epochtop.engine.models.checked_rows import CheckedRows
from epochtop.engine.models.held_objects import held_objects
from epochtop.engine.models.set_metric import SetMetric
from epochtop.engine.tasks.errors.tracebacks import is_of

Examples = tuple[Any, Any] | Dataset[Any]
"""A pair (x, y) of tensors or arrays of equal length, or a Dataset with `__len__` and `__getitem__`.

Rows of a Dataset are pairs (x, y), or dicts whose entries the model takes by name.
"""

MODULE_PREFIX = "task_of_"
"""Beginning of the module name under which the user's file is executed."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Task:
    """A model with its data, loss and metrics. Raises TypeError or ValueError if it cannot be trained.

    epochtop moves the model and the rows to the device. Floating-point rows of arrays become float32, like the weights. `loss` and
    each metric take the model's output and the labels of a batch, and return the mean over its rows as a tensor of one
    number; `.item()` would stop the device.
    """

    model: nn.Module
    """The model, with fresh weights."""
    train: Examples
    """Training rows."""
    test: Examples | None = None
    """Test rows; None holds none out."""
    validation: Examples | None = None
    """Validation rows, which choose the best weights; None uses the test rows."""
    loss: Callable[[Any, Any], Tensor] = functional.cross_entropy
    """Function of (output, labels)."""
    metrics: Mapping[str, Callable[[Any, Any], Tensor] | SetMetric] = field(default_factory=dict)
    """Metrics by name: functions of (output, labels), or objects with `update` and `compute` for metrics that are not means
    over rows. The first is the headline metric."""
    classes: Sequence[str] = ()
    """Names of the classes, in the order of their labels."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"Task.model must be a torch.nn.Module, not {_kind(self.model)}")
        if not callable(self.loss):
            raise TypeError(f"Task.loss must be a function of (output, labels), not {_kind(self.loss)}")
        for part in ("train", "validation", "test"):
            _check_examples(part, getattr(self, part))
        self._check_metrics()
        if isinstance(self.classes, str) or not all(isinstance(name, str) for name in self.classes):
            raise TypeError("Task.classes must be a list of class names")

    def state_dict(self) -> dict[str, Any]:
        """State outside the model's weights and buffers that a resumed run needs, such as counters. Override it.

        May contain tensors, numpy arrays, numbers, strings, bytes, None, and dicts, lists and tuples of these. Called at every
        checkpoint, so it must not read the device.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; its tensors are on the host. Override it together with state_dict."""

    def _check_metrics(self) -> None:
        if not isinstance(self.metrics, Mapping):
            raise TypeError(f"Task.metrics must be a dict of functions by name, not {_kind(self.metrics)}")
        for name, metric in self.metrics.items():
            if not (isinstance(name, str) and (callable(metric) or isinstance(metric, SetMetric))):
                raise TypeError(
                    f"Task.metrics must map names to functions of (output, labels), or to objects with update and compute; "
                    f"{name!r} does not"
                )

    def examples(self, part: Part) -> Rows | Dataset[Any]:
        """The rows of `part` as arrays, or the user's Dataset; zero rows if the task has no such part."""
        examples = getattr(self, part)
        if examples is None:
            return Rows(x=np.empty((0, 1), np.float32), y=np.empty(0, np.float32))
        if isinstance(examples, TensorDataset) and len(examples.tensors) == 2:
            examples = examples.tensors
        if is_dataset(examples):
            return examples  # type: ignore[no-any-return]
        x, y = examples
        return Rows(x=_array(x), y=_array(y))

    @contextmanager
    def untouched(self, device: torch.device) -> Iterator[None]:
        """Restore the random generators, and the state of model, loss and file afterwards.

        Generators may be anywhere in the task, such as in a list of transforms. State is what :func:`restored_attributes`
        restores. Datasets and metrics keep theirs: training does not depend on it.
        """
        parts = [part for part in (self.train, self.validation, self.test) if is_dataset(part)]
        files = [Path(module.__file__ or "") for name, module in sys.modules.items() if name.startswith(MODULE_PREFIX)]
        roots = [self.model, self.loss, *_modules_of(files)]
        own = [
            one for one in held_objects([*roots, *parts, *self.metrics.values()]) if isinstance(one, generators.KINDS)
        ]
        stateful = {id(one): one for one in held_objects(roots, OwnObjects(files, self.metrics.values()))}
        stateful |= {id(part): part for part in self.model.modules()}  # however many there are
        with generators.forked(device, own), restored_attributes(*stateful.values()):
            yield

    def batch(self, rows: int = 2) -> tuple[Any, Any]:
        """The first training rows with their labels, as the model and the loss receive them."""
        return self.batch_of("train", range(min(rows, len(self.examples("train")))))  # type: ignore[arg-type]

    def batch_of(self, part: Part, numbers: Sequence[int]) -> tuple[Any, Any]:
        """The rows of a part with these numbers, with their labels, as the model and the loss receive them."""
        examples = self.examples(part)
        if isinstance(examples, Rows):
            chosen = slice(0, len(numbers)) if isinstance(numbers, range) else list(numbers)
            return torch.from_numpy(input_array(examples.x[chosen])), torch.from_numpy(input_array(examples.y[chosen]))
        with self.untouched(torch.device("cpu")):
            x, y = CheckedRows(examples, "training" if part == "train" else part).batch(numbers)
        return x, y


_HOLDERS = (nn.Module, list, tuple, dict, set, deque, partial, FunctionType, MethodType, ModuleType)
"""Types of objects that have state or hold objects with state, in the user's code and elsewhere."""


class OwnObjects:
    """Tells the objects with state that belongs to a task: layers, containers, functions, and objects of the user's classes."""

    def __init__(self, files: Sequence[Path], others: Iterable[object]) -> None:
        """`files` are the user's files. `others` do not count."""
        self._files, self._others = files, {id(other) for other in others}

    def __call__(self, value: object) -> bool:
        """Whether `value` is such an object."""
        if id(value) in self._others:
            return False
        if isinstance(value, _HOLDERS):
            return True
        if is_dataset(value):
            return False
        module = sys.modules.get(type(value).__module__)
        path = getattr(module, "__file__", None)
        return path is not None and any(is_of(Path(path), file) for file in self._files)


def _modules_of(files: Sequence[Path]) -> list[ModuleType]:
    """The user's files and the modules that they have imported from their folders."""
    folders = tuple(f"{file.parent}{os.sep}" for file in files)
    # not by getattr, which makes lazy modules import themselves
    paths = (
        (module, vars(module).get("__file__")) for module in list(sys.modules.values()) if hasattr(module, "__dict__")
    )
    likely = [(module, Path(path)) for module, path in paths if isinstance(path, str) and path.startswith(folders)]
    return [module for module, path in likely if any(is_of(path, file) for file in files)]


def _kind(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def is_dataset(examples: Any) -> bool:
    """Whether rows are read one by one: from a Dataset of torch, or an object that works like one, such as Hugging Face's."""
    if isinstance(examples, Dataset):
        return True
    rows = hasattr(examples, "__getitem__") and hasattr(examples, "__len__") and not isinstance(examples, type)
    return rows and not isinstance(examples, DataLoader | list | tuple | str | bytes | Mapping | Tensor | np.ndarray)


def _check_examples(part: str, examples: Any) -> None:
    if examples is None and part != "train":
        return
    where = f"Task.{part}"
    if is_dataset(examples):
        if not hasattr(examples, "__len__"):
            raise TypeError(
                f"{where}: the Dataset has no __len__; write a Dataset with __len__ (number of rows) and __getitem__ (one row)"
            )
        rows = len(examples)
    else:
        rows = _rows_of_pair(where, examples)
    if not rows:
        raise ValueError(f"{where} has no rows")


def _rows_of_pair(where: str, examples: Any) -> int:
    pair = isinstance(examples, list | tuple) and len(examples) == 2
    if not pair or not all(isinstance(part, Tensor | np.ndarray) and part.ndim for part in examples):
        actual = (
            f"a {type(examples).__name__} of {len(examples)} values"
            if isinstance(examples, list | tuple)
            else _kind(examples)
        )
        raise TypeError(
            f"{where} must be a pair (x, y) of tensors or arrays, or a Dataset, not {actual}{_advice(examples)}"
        )
    x, y = examples
    if len(x) != len(y):
        raise ValueError(f"{where} has {len(x)} rows and {len(y)} labels; every row needs a label")
    for values in examples:
        if isinstance(values, np.ndarray) and values.dtype.kind not in "biuf":
            raise TypeError(f"{where} has an array of {values.dtype}; use numbers")
        if isinstance(values, Tensor) and values.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
            raise TypeError(f"{where} has a tensor of {values.dtype}; use float32")
    return len(x)


def _advice(examples: Any) -> str:
    """What to write instead of a wrong value of `train` or `test`."""
    if isinstance(examples, DataLoader):
        return "; give its dataset, and set --batch-size"
    if (
        isinstance(examples, list | tuple)
        and examples
        and isinstance(examples[0], list | tuple)
        and len(examples[0]) == 2
    ):
        return "; write x, y = map(torch.stack, zip(*rows)) for tensors, or a Dataset"
    return ""


def _array(values: Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values as an array on the host, floats as float32; a file that is mapped into memory stays as it is."""
    array: npt.NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if _is_shareable(array) and is_mapped_file(array):
        return array.view(np.ndarray)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _is_shareable(array: npt.NDArray[Any]) -> bool:
    """Whether a tensor can share the array's memory: numbers of a type of torch, in its byte order, not reversed."""
    known = array.dtype.kind in "biu" or array.dtype.itemsize <= 8
    return known and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
