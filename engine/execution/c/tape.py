"""The operators of one step, recorded while it runs, to make a graph of the step.

Tensors are identified by their memory, so that views cost nothing and changes in place work. Python side effects of the
step are not recorded and are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.models.nested import tensors_of


@dataclass(frozen=True)
class View:
    """Where a tensor is stored: the number of its memory, and offset, sizes and strides in it, in elements."""

    memory: int
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """Number of values."""
        count = 1
        for size in self.sizes:
            count *= size
        return count

    @property
    def dense(self) -> bool:
        """Whether the values are contiguous in memory, in order."""
        expected = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


@dataclass(frozen=True)
class Call:
    """A call of an operator: its name (`addmm.default`), and arguments and results with views in place of tensors."""

    operator: str
    arguments: tuple[Any, ...]
    results: tuple[View, ...]


@dataclass
class Tape:
    """The recording of a step."""

    calls: list[Call] = field(default_factory=list)
    outside: dict[int, Tensor] = field(default_factory=dict)
    """Tensors that existed before the step, by the number of their memory."""
    bytes: dict[int, int] = field(default_factory=dict)
    """Sizes of memories by their number."""
    loss: View | None = None
    """The result of the step."""


def record(step: Callable[[], Tensor]) -> Tape:
    """Take `step` once, really, and record its operators."""
    recorder = _Recorder()
    with recorder:
        result = step()
    recorder.tape.loss = recorder.view(result)
    return recorder.tape


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = Tape()
        self._alive: list[Tensor] = []  # else another tensor could reuse the memory
        self._numbers: dict[int, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while recording; else the first operator would import torch's compilers, 2 s."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments = _arguments(func, args, kwargs)
        for tensor in tensors_of(arguments):
            self._add_outside(tensor)
        memories = set(self._numbers)
        result = func(*args, **kwargs)
        results = list(tensors_of(result))
        views = tuple(self.view(tensor) for tensor in results)
        fresh = [tensor for tensor in results if tensor.untyped_storage()._cdata not in memories]
        if func._schema.is_mutable or fresh or not results:  # else it only made views
            self.tape.calls.append(Call(_name(func), tuple(self._with_views(value) for value in arguments), views))
        return result

    def view(self, tensor: Tensor) -> View:
        """The view of `tensor`."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._numbers:
            number = self._numbers[storage._cdata] = len(self._numbers)
            self.tape.bytes[number] = storage.nbytes()
            self._alive.append(tensor.detach())
        number = self._numbers[storage._cdata]
        return View(number, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def _add_outside(self, tensor: Tensor) -> None:
        if tensor.untyped_storage()._cdata not in self._numbers:
            self.tape.outside[self.view(tensor).memory] = tensor.detach()

    def _with_views(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.view(value)
        if isinstance(value, list | tuple):
            return tuple(self._with_views(part) for part in value)
        return value


def _name(func: Any) -> str:
    return str(func).removeprefix("aten.")


def _arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments in the order of the operator's schema, defaults included."""
    arguments = list(args)
    for argument in func._schema.arguments[len(args) :]:
        arguments.append(kwargs.get(argument.name, argument.default_value))
    return arguments
