"""State of a user's objects besides weights: counters, buffers, computed tensors. A trial or an evaluation must not change it.

Never imports tasks or job. Never reads a device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from epochtop.engine.models.held_objects import MOST_ITEMS, TORCH_ATTRIBUTES, attributes_of, cells_of

MOST_VALUES, MOST_BUFFER_VALUES = 1 << 20, 1 << 24
"""Values of the largest tensor, and of the largest buffer, that is restored after a change in place. A larger one is put back
if it was replaced."""
Plain = int | float | complex | str | bytes | None
Undo = Callable[[], object]
_PUT_BACK = (Tensor, list, tuple, deque, set, dict)
"""Types of attributes that are put back if they were replaced."""


@contextmanager
def restored_attributes(*owners: object) -> Iterator[None]:
    """Restore the state of these objects afterwards: numbers, texts, booleans, None and tensors.

    An owner is a module with its buffers, another object with attributes, a function with its closure, a list, deque, set or
    dict. Numbers and texts that are new, such as a counter that begins as an attribute of the class, are removed. Objects that
    are new in attributes and dicts stay: they may be caches.
    """
    undo = [action for owner in owners for action in _undo(owner)]
    try:
        yield
    finally:
        for action in undo:
            action()


def training_modes(module: nn.Module) -> Undo:
    """A function that gives `module` and each layer in it back its mode: training or evaluation. They may differ."""
    modes = [(part, part.training) for part in module.modules()]

    def restore() -> None:
        for part, training in modes:
            part.training = training

    return restore


def _undo(owner: object) -> Iterator[Undo]:
    if isinstance(owner, list | deque | set):
        yield from _undo_items(owner)
        return
    if isinstance(owner, FunctionType):
        for cell in cells_of(owner):
            yield from _undo_cell(cell)
    attributes = owner if isinstance(owner, dict) else attributes_of(owner)
    if attributes is not None and (len(attributes) <= MOST_ITEMS or attributes is not owner):
        yield partial(_restore_plain, attributes, _plain_values(attributes))
        yield from _undo_replaced(attributes)
    if isinstance(owner, nn.Module):
        buffers = dict(owner._buffers.items()) if _is_scripted(owner) else owner._buffers
        yield from _undo_replaced(buffers, are_buffers=True)


def _is_scripted(module: nn.Module) -> bool:
    """Whether the buffers of a module are not in a dict; then only their values are restored."""
    return isinstance(module, torch.jit.ScriptModule)


def _undo_items(items: Any) -> Iterator[Undo]:
    if len(items) > MOST_ITEMS:
        return
    before = items.copy()

    def restore() -> None:
        if [*map(id, items)] != [*map(id, before)]:
            items.clear()
            (items.update if isinstance(items, set) else items.extend)(before)

    yield restore


def _undo_cell(cell: CellType) -> Iterator[Undo]:
    value = cell.cell_contents
    if isinstance(value, Plain | Tensor):
        yield partial(setattr, cell, "cell_contents", value)
    if isinstance(value, Tensor):
        yield from _undo_values(value)


def _plain_values(attributes: dict[Any, Any]) -> dict[Any, Plain]:
    return {
        name: value for name, value in attributes.items() if isinstance(value, Plain) and not str(name).startswith("__")
    }


def _restore_plain(attributes: dict[Any, Any], values: dict[Any, Plain]) -> None:
    for name in _plain_values(attributes).keys() - values.keys():
        del attributes[name]
    attributes.update(values)


def _undo_replaced(values: Any, are_buffers: bool = False) -> Iterator[Undo]:
    """For a dict of attributes or buffers: the tensors and containers in it, and the values of the tensors."""
    for name, value in list(values.items()):
        if not isinstance(value, _PUT_BACK) or name in TORCH_ATTRIBUTES:
            continue
        if isinstance(value, Tensor) and is_lazy(value):
            continue
        yield partial(_put_back, values, name, value)
        if isinstance(value, Tensor):
            yield from _undo_values(value, are_buffers)


def _put_back(values: Any, name: str, value: object) -> None:
    if values.get(name) is not value:
        values[name] = value


def _undo_values(tensor: Tensor, is_buffer: bool = False) -> Iterator[Undo]:
    most_values = MOST_BUFFER_VALUES if is_buffer else MOST_VALUES
    if tensor.is_inference() or tensor.layout is not torch.strided or tensor.numel() > most_values:
        return
    version, values = tensor._version, tensor.detach().clone()

    def restore() -> None:
        if is_buffer or tensor._version != version:  # BatchNorm changes its buffers without a new version
            with torch.no_grad():
                tensor.detach().copy_(values)

    yield restore
