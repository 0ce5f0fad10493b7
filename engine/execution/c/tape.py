"""The operators of one step, written down while it runs: what a graph of the step is made from.

Tensors are known by the memory they lie in, so that views cost nothing and changes in place are what they are.
What the step's Python code does beside calling operators is not on the tape and will not happen again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class View:
    """Where the values of a tensor lie: number of its memory, and the strided part of it, in elements."""

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
        """Whether the values follow each other in memory, in order."""
        expected = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


@dataclass(frozen=True)
class Call:
    """One operator: its name (`addmm.default`), and arguments and results with views in place of tensors."""

    operator: str
    arguments: tuple[Any, ...]
    results: tuple[View, ...]


@dataclass
class Tape:
    """What a step did. `outside` are the tensors that were there before it, by the number of their memory."""

    calls: list[Call] = field(default_factory=list)
    outside: dict[int, Tensor] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)
    """Size of every memory."""
    loss: View | None = None


def record(step: Callable[[], Tensor]) -> Tape:
    """Take `step` once, for real, and write down its operators. Its result is the tape's loss."""
    recorder = _Recorder()
    with recorder:
        result = step()
    recorder.tape.loss = recorder.view(result)
    return recorder.tape


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = Tape()
        self._alive: list[Tensor] = []  # else another tensor could get the same memory
        self._numbers: dict[int, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """What is recorded is not compiled meanwhile; else the first operator would import torch's compilers, 2 s."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _arguments(func, args, kwargs)
        for tensor in _tensors(given):
            self._outside(tensor)
        before = set(self._numbers)
        result = func(*args, **kwargs)
        results = list(_tensors(result))
        views = tuple(self.view(tensor) for tensor in results)
        fresh = [tensor for tensor in results if tensor.untyped_storage()._cdata not in before]
        if func._schema.is_mutable or fresh or not results:  # else views alone came of it
            self.tape.calls.append(Call(_name(func), tuple(self._told(value) for value in given), views))
        return result

    def view(self, tensor: Tensor) -> View:
        """Where the values of `tensor` lie."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._numbers:
            number = self._numbers[storage._cdata] = len(self._numbers)
            self.tape.bytes[number] = storage.nbytes()
            self._alive.append(tensor.detach())
        number = self._numbers[storage._cdata]
        return View(number, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def _outside(self, tensor: Tensor) -> None:
        if tensor.untyped_storage()._cdata not in self._numbers:
            self.tape.outside[self.view(tensor).memory] = tensor.detach()

    def _told(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.view(value)
        if isinstance(value, list | tuple):
            return tuple(self._told(part) for part in value)
        return value


def _name(func: Any) -> str:
    return str(func).removeprefix("aten.")


def _arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments in the order of the operator's schema, defaults included."""
    given = list(args)
    for argument in func._schema.arguments[len(args) :]:
        given.append(kwargs.get(argument.name, argument.default_value))
    return given


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
