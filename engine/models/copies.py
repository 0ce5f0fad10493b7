"""Copies of models, also of those whose modules hold computed tensors. Never changes the original."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

T = TypeVar("T")


def deep_copy(value: T, *modules: nn.Module) -> T:
    """A deep copy of `value`, which contains `modules`.

    torch refuses to copy computed tensors, such as the weight that :func:`torch.nn.utils.weight_norm` leaves in a module;
    a copy has their current values until its next forward pass.
    """
    memo: dict[int, object] = {}
    for part in (part for module in modules for part in module.modules()):
        for attribute in vars(part).values():
            if isinstance(attribute, Tensor) and not attribute.is_leaf:
                memo[id(attribute)] = attribute.detach().clone()
    return copy.deepcopy(value, memo)
