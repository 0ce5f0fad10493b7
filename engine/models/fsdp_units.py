"""Which parts of a model are gathered one at a time where its weights are spread over several processes.

While a part is at work each process holds all of its weights; afterwards only its own share again. So the smaller the
parts, the less memory, and the more exchanges. What is in no part is gathered with the model as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from epochtop.engine.models.trace import tensors_of
from epochtop.engine.protocol.spec import Invalid

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
WORTH = 1e-3
"""Share of all weights below which a part is not worth an exchange of its own."""
AS_ONE = 2**20
"""A model of at most so many weights (4 MiB) is gathered as a whole: more exchanges would cost time and save nothing."""


def check(model: nn.Module) -> None:
    """Raises Invalid for weights that cannot be gathered together."""
    kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in model.parameters()})
    if len(kinds) > 1:
        raise Invalid("shard", f"needs weights of one type; the model has {' and '.join(kinds)}")


def units(model: nn.Module, example: Any = None) -> list[nn.Module]:
    """The parts, inner ones before those that hold them.

    There are none in a small model. With an `example` batch the model is run once on it, without a gradient, to see which weights are used while
    their module is not at work: such a module is no part. Without one, none is expected.
    """
    every = sum(weight.numel() for weight in model.parameters())
    if every <= AS_ONE:
        return []
    alone = [part for part in _large(model, WORTH * every) if not _shares_weights(model, part)]
    if example is None:
        return alone
    strays = _strays(model, alone, example)
    return [part for part in alone if part not in strays]


def _large(model: nn.Module, least: float) -> Iterator[nn.Module]:
    """Parts with so many weights besides those of parts in them."""
    taken: set[nn.Parameter] = set()
    for part in dict.fromkeys(_parts(model)):
        own = [weight for weight in part.parameters() if weight.ndim and weight not in taken]
        if own and sum(weight.numel() for weight in own) >= least:
            taken.update(own)
            yield part


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Every layer of a container, except that a block is one part; and what holds such containers."""
    for child in module.children():
        if isinstance(child, CONTAINERS) or _has_blocks(child):
            yield from _parts(child)
        if not isinstance(child, CONTAINERS) and any(True for _ in child.parameters()):
            yield child


def _has_blocks(module: nn.Module) -> bool:
    """Whether there is a row of modules in it that are more than single layers."""
    rows = (row for row in module.modules() if isinstance(row, nn.Sequential | nn.ModuleList))
    return any(sum(any(True for _ in block.children()) for block in row) > 1 for row in rows)


def _shares_weights(model: nn.Module, part: nn.Module) -> bool:
    """Whether a module outside has one of its weights too (tied weights)."""
    inside = {*part.modules()}
    own = {*part.parameters()}
    outside = (module for module in model.modules() if module not in inside)
    return any(weight in own for module in outside for weight in module.parameters(recurse=False))


# --- what uses what, seen in one run ---------------------------------------------------------------------------


def _strays(model: nn.Module, parts: list[nn.Module], example: Any) -> set[nn.Module]:
    """Parts whose weights are used from outside, or that are not called exactly once."""
    watch = _Uses(parts)
    hooks = [hook for part in parts for hook in (
        part.register_forward_pre_hook(watch.begin), part.register_forward_hook(watch.end, always_call=True)
    )]  # fmt: skip
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), watch:
            model(example)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return watch.strays | {part for part in parts if watch.calls[part] != 1}


class _Uses(TorchFunctionMode):
    """Sees every function of torch with its arguments, and which parts are at work meanwhile."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.strays: set[nn.Module] = set()
        self.calls = dict.fromkeys(parts, 0)
        self._active: list[nn.Module] = []
        self._owners: dict[int, list[nn.Module]] = {}
        for part in parts:
            for weight in part.parameters():
                self._owners.setdefault(id(weight), []).append(part)

    def begin(self, part: nn.Module, _inputs: Any) -> None:
        """Before its forward."""
        self.calls[part] += 1
        self._active.append(part)

    def end(self, part: nn.Module, _inputs: Any, _output: Any) -> None:
        """After it."""
        self._active.remove(part)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tensors_of((args, kwargs or {})):
            owners = self._owners.get(id(tensor), ())
            self.strays.update(part for part in owners if part not in self._active)
        return func(*args, **(kwargs or {}))
