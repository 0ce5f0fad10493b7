"""The state of a user's task as named tensors, for checkpoints, and back. Never pickles anything.

What a task's `state_dict` returns becomes one JSON text, stored as bytes, and the tensors in it. Lists and tuples, dicts with
any plain keys, and integers of any size come back as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

PREFIX = "task."
"""Beginning of the tensors' names in a checkpoint."""
TEXT = "json"
"""End of the name of the JSON text."""


def encode(
    state: Mapping[str, Any],
    prefix: str = PREFIX,
    place_of: Callable[[str], str] = lambda key: f"state_dict()[{key!r}]",
) -> dict[str, Tensor]:
    """The state as named tensors; copies of the user's. Empty for an empty state. Raises TypeError for other contents.

    A state may contain tensors, numpy arrays, numbers, strings, bytes, booleans, None, and dicts, lists and tuples of these.
    `place_of` says in an error where the value of a key comes from.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state_dict() returned a value of type {type(state).__name__}; it must return a dict")
    if not state:
        return {}
    tensors: dict[str, Tensor] = {}
    pairs = [(_key(key, "state_dict()"), _encoded(item, place_of(key), tensors, prefix)) for key, item in state.items()]
    text = json.dumps({"dict": pairs})
    return {f"{prefix}{TEXT}": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8), **tensors}


def decode(tensors: Mapping[str, Tensor], prefix: str = PREFIX) -> dict[str, Any] | None:
    """The state from a checkpoint's tensors; None if it has none."""
    if f"{prefix}{TEXT}" not in tensors:
        return None
    state: dict[str, Any] = _decoded(json.loads(bytes(tensors[f"{prefix}{TEXT}"].tolist())), tensors)
    return state


def _encoded(value: Any, place: str, tensors: dict[str, Tensor], prefix: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        pairs = [
            (_key(key, place), _encoded(item, f"{place}[{key!r}]", tensors, prefix)) for key, item in value.items()
        ]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encoded(item, f"{place}[{number}]", tensors, prefix) for number, item in enumerate(value)]}
    if isinstance(value, Tensor | np.ndarray | bytes):
        name = f"{prefix}{len(tensors)}"
        if isinstance(value, Tensor):
            tensors[name] = value.detach().clone()
            return {"tensor": name}
        array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        tensors[name] = torch.from_numpy(array.copy())
        return {"bytes" if isinstance(value, bytes) else "array": name}
    raise TypeError(
        f"{place} is a value of type {type(value).__name__}; "
        "return tensors, arrays, numbers, strings, bytes, and dicts or lists of these"
    )


def _key(key: Any, place: str) -> Any:
    if not isinstance(key, bool | int | float | str | None):
        raise TypeError(f"{place} has a key of type {type(key).__name__}; use strings or numbers as keys")
    return key


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "dict":
            return {key: _decoded(item, tensors) for key, item in content}
        case "list":
            return [_decoded(item, tensors) for item in content]
        case "tuple":
            return tuple(_decoded(item, tensors) for item in content)
        case "bytes":
            return bytes(tensors[content].tolist())
        case "array":
            return tensors[content].cpu().numpy().copy()
    return tensors[content].clone()
