"""Plain attributes of modules, such as counters, which a forward pass that is only a trial must not change.

Never imports tasks or job.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def restored_attributes(model: nn.Module) -> Iterator[None]:
    """Restore numbers, strings and booleans in the attributes of all modules afterwards, training modes included.

    Attributes that are new, such as a counter that begins as an attribute of the class, are removed.
    """
    before = [(module, _plain_values(module), module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, values, training in before:
            for name in _plain_values(module).keys() - values.keys():
                delattr(module, name)
            module.training = training
            vars(module).update(values)


def _plain_values(module: nn.Module) -> dict[str, Any]:
    return {
        name: value for name, value in vars(module).items() if value is None or isinstance(value, int | float | str)
    }
