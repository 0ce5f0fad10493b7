"""A model whose inputs and outputs are plain tensors with names, as ONNX has them. Must never change the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.device import generators
from epochtop.engine.models.nested import mapped, tensors_of


class FlatModel(nn.Module):
    """Calls `model` with the nested structure of an example, whatever its containers are: dicts, dataclasses, tuples."""

    def __init__(self, model: nn.Module, example: Any) -> None:
        """`example` is a batch. Its numbers and texts become part of the model."""
        super().__init__()
        # torch.export cannot look into DataParallel
        self.model: nn.Module = model.module if isinstance(model, nn.DataParallel) else model
        self._example = example
        self.inputs: tuple[Tensor, ...] = tuple(tensors_of(example))
        self.input_names = list(_names(example, "", "input"))
        with torch.no_grad(), generators.forked(torch.device("cpu")):
            self.output_names = list(_names(self.model(example), "", "output"))

    def forward(self, *tensors: Tensor) -> Any:
        """The output for the tensors of a batch: a tensor, or all tensors in it."""
        remaining = iter(tensors)
        output = self.model(mapped(self._example, lambda _: next(remaining)))
        return output if isinstance(output, Tensor) else tuple(tensors_of(output))


def _names(value: Any, name: str, whole: str) -> Iterator[str]:
    """A name per tensor in `value`, in the order of :func:`tensors_of`: its keys, fields and places, or `whole`."""
    if isinstance(value, Tensor):
        yield name or whole
        return
    for key, part in _parts(value):
        begin = name or (whole if isinstance(key, int) else "")
        yield from _names(part, f"{begin}_{key}" if begin else str(key), whole)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif hasattr(value, "_fields"):  # a namedtuple
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
