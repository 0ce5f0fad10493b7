"""Nested batches: tensors in tuples, lists, dicts, dataclasses and other containers, walked and mapped in one way.

Rows, labels and outputs of custom tasks have such structures. Never counts rows: a structure does not show them, so the
loader reports them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate

Change = Callable[[Tensor], Any]


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in `value`, in order; None, numbers, strings and unknown objects have none."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):  # before dataclasses: ModelOutput of transformers is both
        for part in value.values():
            yield from tensors_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_of(part)
    elif _is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name, None))


def mapped(value: Any, change: Change, other: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
    """A copy of the structure with `change` applied to every tensor, and `other` to everything else that is not a container."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return _mapping(value, {key: mapped(part, change, other) for key, part in value.items()})
    if isinstance(value, PackedSequence):  # its batch sizes stay on the host
        orders = (None if part is None else change(part) for part in value[2:])
        return PackedSequence(change(value.data), value.batch_sizes, *orders)
    if isinstance(value, list | tuple):
        return _sequence(value, [mapped(part, change, other) for part in value])
    if _is_dataclass(value):
        return _dataclass(value, lambda part: mapped(part, change, other))
    return other(value)


def rows_first(value: Any, rows: int) -> Tensor | None:
    """The first tensor in `value` whose first dimension has this many rows, such as the logits after a loss."""
    return next((part for part in tensors_of(value) if part.ndim and len(part) == rows), None)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _mapping(value: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    """A mapping of the type of `value`; a dict if that type cannot be built, as in torch's `default_collate`."""
    if type(value) is dict:
        return parts
    try:
        if not isinstance(value, MutableMapping):
            return type(value)(parts)  # type: ignore[call-arg]
        changed = copy.copy(value)
        for key, part in parts.items():
            changed[key] = part
    except TypeError:
        return parts
    return changed


def _sequence(value: Any, parts: list[Any]) -> Any:
    """A list or tuple of the type of `value`; a plain one if that type cannot be built."""
    if hasattr(value, "_make"):  # a namedtuple
        return value._make(parts)
    try:
        return type(value)(parts)
    except TypeError:
        return tuple(parts) if isinstance(value, tuple) else parts


def _dataclass(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy with changed fields; not `dataclasses.replace`, which repeats `__post_init__`."""
    changed = copy.copy(value)
    for field in dataclasses.fields(value):
        if hasattr(value, field.name):
            object.__setattr__(changed, field.name, change(getattr(value, field.name)))  # it may be frozen
    return changed


def joined(values: Sequence[Any]) -> Any:
    """One batch of several with the same structure, concatenated tensor by tensor."""
    columns = zip(*map(tensors_of, values), strict=True)
    return mapped(values[0], lambda _: torch.cat(next(columns)))


def collated(rows: Sequence[Any]) -> Any:
    """One batch of rows, as torch's `default_collate` makes it; rows may also be dataclasses or have None in them."""
    first = rows[0]
    if not _is_beyond_torch(first):
        return default_collate(list(rows))
    if first is None:
        if any(row is not None for row in rows):
            raise TypeError(
                "some rows have None where others have a value; a batch needs the same structure in all rows"
            )
        return None
    if isinstance(first, Mapping):
        return _mapping(first, {key: collated([row[key] for row in rows]) for key in first})
    if _is_dataclass(first):
        columns = (collated([getattr(row, field.name) for row in rows]) for field in dataclasses.fields(first))
        return _dataclass(first, lambda _: next(columns))
    parts = [collated(column) for column in zip(*rows, strict=True)]
    return first._make(parts) if hasattr(first, "_make") else parts


def _is_beyond_torch(row: Any) -> bool:
    """Whether `default_collate` refuses such a row."""
    if isinstance(row, Mapping):
        return any(map(_is_beyond_torch, row.values()))
    if isinstance(row, list | tuple):
        return any(map(_is_beyond_torch, row))
    return row is None or _is_dataclass(row)
