"""Datasets whose rows are dicts, as those of Hugging Face: the model gets the entries of a batch by name.

A row `{"input_ids": …, "labels": …}` becomes the pair (row, labels), and a hook calls `model(**batch)`. So everything else
knows pairs and `model(x)` only, and the names of the weights stay the user's. Never changes a row.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from epochtop.engine.models.copies import deep_copy
from epochtop.engine.tasks.task import Task, is_dataset

_HOST = torch.device("cpu")
LABELS = "labels", "label", "label_ids"
"""Names of a row's labels, the first of them that it has; these are the names that Hugging Face's collators know."""


class PairedRows(Dataset[Any]):
    """The rows of a Dataset of dicts as pairs (row, labels). Without labels, the loss gets the whole row in their place."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        if hasattr(dataset, "__getitems__"):
            self.__getitems__ = self._rows
            """DataLoader fetches all rows of a batch at once if there is such a method."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return _pair(self.dataset[number])

    def _rows(self, numbers: list[int]) -> list[tuple[Any, Any]]:
        return [_pair(row) for row in self.dataset.__getitems__(numbers)]


def with_paired_rows(task: Task) -> Task:
    """The task with pairs in place of dicts, if the training rows are dicts; else the task itself.

    Adds a hook to its model. If the loss is the default one and the model returns no tensor, the loss is the model's own.
    """
    if not is_dataset(task.train):
        return task
    with task.untouched(_HOST):
        first = task.train[0]
    if not isinstance(first, Mapping):
        return task
    paired = copy.copy(task)
    for part in ("train", "validation", "test"):
        if getattr(task, part) is not None:
            object.__setattr__(paired, part, PairedRows(getattr(task, part)))  # a Task is frozen
    task.model.register_forward_pre_hook(_by_name, with_kwargs=True)
    if task.loss is functional.cross_entropy and not _returns_tensor(paired):
        object.__setattr__(paired, "loss", model_loss)
    return paired


def _returns_tensor(task: Task) -> bool:
    """Whether the model returns a tensor for two rows. If it fails, the trial of the task explains why."""
    try:
        with task.untouched(_HOST), torch.no_grad():
            return isinstance(deep_copy(task.model, task.model).eval()(task.batch()[0]), Tensor)
    except Exception:
        return True


def model_loss(output: Any, labels: Any) -> Tensor:
    """The loss that the model has computed, if there is one; else cross entropy of its output, or of its logits."""
    if isinstance(output, Tensor):
        return functional.cross_entropy(output, labels)
    loss, logits = _entry(output, "loss"), _entry(output, "logits")
    if isinstance(loss, Tensor):
        return loss
    if isinstance(logits, Tensor) and isinstance(labels, Tensor):
        return functional.cross_entropy(logits, labels)
    raise TypeError("the output has neither a loss nor logits for the labels of its rows; give the Task a loss")


def _pair(row: Any) -> tuple[Any, Any]:
    return row, next((row[name] for name in LABELS if name in row), row)


def _by_name(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments of a call with a dict: its entries by name, without those that `forward` does not take.

    A model none of whose parameters has the name of an entry gets the dict itself.
    """
    if len(args) != 1 or kwargs or not isinstance(args[0], Mapping):
        return None
    entries = dict(args[0])
    label = next((name for name in LABELS if name in entries), "")
    parameters = inspect.signature(model.forward).parameters
    if label and "labels" in parameters and "labels" not in entries:
        entries["labels"] = entries.pop(label)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return (), entries
    arguments = {name: value for name, value in entries.items() if name in parameters}
    return ((), arguments) if arguments else None


def _entry(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
