"""The objects that a user's objects hold: in attributes, containers, closures and arguments. Never imports tasks or job."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

MOST_OBJECTS = 10_000
"""Objects that are looked at, at most."""
MOST_ITEMS = 1_000
"""Items of the largest container that is looked into. Larger ones hold data."""
TORCH_ATTRIBUTES = frozenset(vars(nn.Module())) - {"training"}
"""Attributes that torch gives to every module."""
_HOOKS = [name for name in TORCH_ATTRIBUTES if name.endswith("_hooks")]
_LEAVES = (int, float, complex, str, bytes, bytearray, type, ModuleType, Tensor, np.ndarray, np.generic, io.IOBase)


def held_objects(roots: Iterable[object], follow: Callable[[object], bool] = lambda _: True) -> list[object]:
    """The roots and everything that they hold, each object once. Objects for which `follow` is false are left out."""
    objects: dict[int, object] = {}
    waiting = deque[object](roots)
    while waiting and len(objects) < MOST_OBJECTS:
        value = waiting.popleft()
        if id(value) in objects or not follow(value):
            continue
        objects[id(value)] = value
        waiting.extend(part for part in _parts(value) if part is not None and not isinstance(part, _LEAVES))
    return list(objects.values())


def attributes_of(owner: object) -> dict[str, Any] | None:
    """The attributes of an object, which changes change the object; None if it has none, as a list."""
    attributes = getattr(owner, "__dict__", None)
    return attributes if isinstance(attributes, dict) else None


def cells_of(function: FunctionType) -> Iterator[CellType]:
    """The variables of outer functions that a function uses and that have a value."""
    for cell in function.__closure__ or ():
        try:
            cell.cell_contents  # noqa: B018 - raises if it is empty
        except ValueError:
            continue
        yield cell


def _parts(value: Any) -> Iterator[object]:
    if isinstance(value, list | tuple | set | frozenset | deque):
        yield from value if len(value) <= MOST_ITEMS else ()
        return
    if isinstance(value, dict):
        yield from list(value.values()) if len(value) <= MOST_ITEMS else ()
        return
    if isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
        return
    elif isinstance(value, FunctionType):
        yield from (cell.cell_contents for cell in cells_of(value))
        yield from value.__defaults__ or ()
    attributes = attributes_of(value) or {}
    if isinstance(value, nn.Module):
        yield from (hook for name in _HOOKS for hook in attributes.get(name, {}).values())
        yield from value._modules.values()
        attributes = {name: part for name, part in attributes.items() if name not in TORCH_ATTRIBUTES}
    yield from (part for name, part in list(attributes.items()) if not name.startswith("__"))
