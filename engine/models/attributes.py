"""Plain attributes of modules, such as counters, which a forward pass that is only a trial must not change.

Never imports tasks or job.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def restored_attributes(model: nn.Module) -> Iterator[None]:
    """Restore numbers, strings and booleans in the attributes of all modules afterwards, training modes included."""
    before = [
        (
            module,
            {
                name: value
                for name, value in vars(module).items()
                if value is None or isinstance(value, int | float | str)
            },
        )
        for module in model.modules()
    ]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, values in before:
            vars(module).update(values)
