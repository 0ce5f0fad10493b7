"""Rows of a user's Dataset, read so that an error names its row and the user's line, also if a worker process reads them.

An error in a worker reaches the main process as text only. So a failed batch comes as a value, a :class:`RowError`, and is
raised where the batch is taken. Never imports tasks.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, Subset

from epochtop.engine.models.nested import collated, tensors_of

IGNORED = -100
"""The label that torch's cross entropy ignores by default."""
Frame = tuple[str, int, str]
"""A line of code that was executed: file, number, function."""


class RowError(Exception):
    """A row that cannot be read, or rows that cannot be joined to a batch; the message is complete."""

    def __init__(self, message: str, user_frames: Sequence[Frame] = ()) -> None:
        """`user_frames` are the lines that lead to the error, the innermost last. Some may not be the user's."""
        super().__init__(message, user_frames)
        self.message, self.user_frames = message, user_frames

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class LabelRange:
    """The labels that a loss of class numbers takes: 0 to `classes` - 1, and `ignored`."""

    classes: int
    ignored: int

    def first_outside(self, labels: npt.NDArray[Any]) -> int | None:
        """The first row of `labels` (rows, …) with a label outside; None if there is none."""
        if labels.dtype.kind not in "iu" or not labels.size:
            return None
        if labels.min() >= 0 and labels.max() < self.classes:
            return None
        outside = ((labels < 0) | (labels >= self.classes)) & (labels != self.ignored)
        rows = outside.reshape(len(labels), -1).any(axis=1)
        return int(rows.argmax()) if rows.any() else None

    def problem(self, part: str, row: int, labels: npt.NDArray[Any]) -> str:
        """What is wrong with the labels of a row of a part, such as `training`, and what to do."""
        values = labels.reshape(-1)
        outside = values[((values < 0) | (values >= self.classes)) & (values != self.ignored)]
        return out_of_range(part, row, int(outside[0]), self.classes)


def class_numbers(labels: object) -> npt.NDArray[Any] | None:
    """Labels on the host as an array; None if they are not a tensor of integers."""
    if not isinstance(labels, Tensor) or labels.layout != torch.strided:
        return None
    return None if labels.is_floating_point() or labels.is_complex() else labels.cpu().numpy()


_CLASS_LOSSES = (nn.CrossEntropyLoss.forward, nn.NLLLoss.forward)


def class_loss_options(loss: object) -> dict[str, Any] | None:
    """The options of a loss of torch that takes class numbers, by torch's names; None for any other loss."""
    options: dict[str, Any] = {}
    if isinstance(loss, partial):  # partials of partials are flat
        options = loss.keywords
        loss = loss.func
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) and type(loss).forward in _CLASS_LOSSES:
        return vars(loss) | {"weight": loss.weight}
    return options if loss is functional.cross_entropy or loss is functional.nll_loss else None


def label_range(loss: object, output: object) -> LabelRange | None:
    """The labels that `loss` takes for outputs such as this one; None for a loss without class numbers."""
    options = class_loss_options(loss)
    if options is None or not isinstance(output, Tensor) or output.ndim < 2:
        return None
    return LabelRange(output.shape[1], options.get("ignore_index", IGNORED))


def out_of_range(part: str, row: int, label: int, classes: int) -> str:
    """A label out of range: where it is, what would be right, what to do."""
    where = f"{part} row {row:,}" if part else f"row {row:,}"
    return (
        f"the label of {where} is {label}, but the model has {classes} outputs, so labels go from 0 to {classes - 1} "
        "(rows count from 0); fix the labels or add outputs"
    )


class NumberedRows(list[Any]):
    """Rows and their numbers in the Dataset."""

    numbers: Sequence[int] = ()


class CheckedRows(Dataset[Any]):
    """A map-style Dataset with errors that name the row."""

    def __init__(self, dataset: Dataset[Any], part: str = "", labels: LabelRange | None = None) -> None:
        """`part` names the Dataset in errors, such as `test`; labels outside of `labels` are errors."""
        self.dataset, self._part, self._labels = dataset, part, labels

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> Any:
        try:
            return self.dataset[row]
        except (Exception, SystemExit) as error:
            raise self._error(f"row {row:,}: {_one_line(error)}", error) from error

    def __getitems__(self, numbers: Sequence[int]) -> NumberedRows | RowError:
        """The rows with these numbers, or the error of one; DataLoader calls it."""
        fetch = getattr(self.dataset, "__getitems__", None)
        rows, number = NumberedRows(), numbers[0]
        rows.numbers = numbers
        try:
            if fetch is not None:
                rows.extend(fetch(list(numbers)))
            else:
                for number in numbers:
                    rows.append(self.dataset[number])
        except (Exception, SystemExit) as error:  # which would end a worker without a word
            which = f"row {number:,}" if fetch is None else f"rows {number:,}, …"
            return self._error(f"{which}: {_one_line(error)}", error)
        return rows

    def collate(self, rows: NumberedRows | RowError) -> Any:
        """A batch (x, y) of rows, or the error; DataLoader calls it."""
        if isinstance(rows, RowError):
            return rows
        problem = ""
        if not all(isinstance(row, tuple | list) and len(row) == 2 for row in rows):
            problems = (_not_a_pair(row, number) for number, row in zip(rows.numbers, rows, strict=False))
            problem = next(filter(None, problems))
        if problem:
            return self._error(problem)
        if any(_is_text_among_others(part) for part in zip(*rows, strict=True)):  # torch would make a list of them
            return self._error(_different(rows))
        try:
            x, y = collated(rows)
        except Exception as error:
            return self._error(_different(rows) or f"rows cannot be joined to a batch: {_one_line(error)}", error)
        labels = None if self._labels is None else class_numbers(y)
        if self._labels is not None and labels is not None:
            row = self._labels.first_outside(labels)
            if row is not None:
                return self._error(self._labels.problem(self._part, rows.numbers[row], labels[row]))
        return x, y

    def batch(self, numbers: Iterable[int]) -> Any:
        """The batch of the rows with these numbers. Raises RowError."""
        return batch_of(self.collate(self.__getitems__(list(numbers))))

    def _error(self, message: str, error: BaseException | None = None) -> RowError:
        code = getattr(getattr(type(_innermost(self.dataset)), "__getitem__", None), "__code__", None)
        defined = [(code.co_filename, code.co_firstlineno, code.co_name)] if code is not None else []
        stack = traceback.extract_tb(error.__traceback__) if error is not None else []
        frames = [(frame.filename, frame.lineno or 0, frame.name) for frame in stack]
        failed = RowError(message, [*defined, *frames])
        failed.__cause__ = error
        return failed


def collation_of(dataset: Dataset[Any]) -> Callable[[Any], Any]:
    """The function that makes a batch of the rows of a Dataset."""
    inner = _innermost(dataset)
    return inner.collate if isinstance(inner, CheckedRows) else collated


def _innermost(dataset: Dataset[Any]) -> Dataset[Any]:
    """The Dataset that a Subset takes its rows from, as of `random_split`."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def batch_of(value: Any) -> Any:
    """A batch that a DataLoader has read. Raises RowError if it failed."""
    if isinstance(value, RowError):
        raise value
    return value


def users_dataset(dataset: Dataset[Any]) -> Dataset[Any]:
    """The user's own Dataset."""
    return dataset.dataset if isinstance(dataset, CheckedRows) else dataset


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _not_a_pair(row: Any, number: int) -> str:
    if isinstance(row, list | tuple) and len(row) == 2:
        return ""
    kind = type(row).__name__ + (f" of {len(row)} values" if isinstance(row, list | tuple | dict) else "")
    return f"row {number:,} is a {kind}, but items of a Dataset must be pairs (x, y): return x, y from __getitem__"


def _different(rows: NumberedRows) -> str:
    """How two rows differ in structure, or their tensors in shape; empty if they do not."""
    first, first_form = _shapes(rows[0]), _form(rows[0])
    for number, row in zip(rows.numbers, rows, strict=False):
        if _form(row) != first_form:
            return (
                f"row {rows.numbers[0]:,} is {first_form} and row {number:,} {_form(row)}, so they cannot be joined to a batch; "
                "give all rows one structure in __getitem__"
            )
        for one, other in zip(first, _shapes(row), strict=False):
            if one != other:
                return (
                    f"row {rows.numbers[0]:,} has the shape {one} and row {number:,} {other}, so they cannot be joined to a "
                    "batch; give all rows one shape in __getitem__, for example with padding"
                )
    return ""


def _is_text_among_others(values: Sequence[Any]) -> bool:
    return isinstance(values[0], str) and not all(isinstance(value, str) for value in values)


def _form(value: Any) -> str:
    """The types in a row: `(Tensor, str)`, `{'x': Tensor}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_form(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_form, value))})"
    if isinstance(value, bool | int | float | np.generic):
        return "a number"
    return "None" if value is None else type(value).__name__


def _shapes(row: Any) -> list[tuple[int, ...]]:
    parts = row if isinstance(row, list | tuple) else (row,)
    tensors = (torch.as_tensor(part) if isinstance(part, np.ndarray) else part for part in parts)
    return [tuple(tensor.shape) for part in tensors for tensor in tensors_of(part)]
