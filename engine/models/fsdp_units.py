"""Chooses the units of FSDP: the modules whose sharded weights are gathered together.

While a unit runs, each process holds all of its weights; afterwards only its shard. Smaller units need less memory but
more communication. Weights outside all units are gathered with the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from epochtop.engine.device import generators
from epochtop.engine.models.attributes import restored_attributes
from epochtop.engine.models.nested import tensors_of
from epochtop.engine.protocol.spec import Invalid

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Modules that only hold other modules."""
MINIMUM_SHARE = 1e-3
"""Smallest share of all weights that makes a unit; less is not worth its communication."""
UNDIVIDED_WEIGHTS = 2**20
"""Models of up to this many weights (4 MiB) have no units: more communication would cost time and save nothing."""


def check(model: nn.Module) -> None:
    """Raises Invalid if the weights have different types, which cannot be gathered together."""
    kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in model.parameters()})
    if len(kinds) > 1:
        raise Invalid(
            "shard",
            f"needs weights of one type, but the model has {' and '.join(kinds)}; convert it, for example with model.float()",
        )


def units(model: nn.Module, example: Any = None) -> list[nn.Module]:
    """The units of a model, inner ones before those that contain them; none for a small model.

    With an `example` batch, the model runs once without gradients, to exclude modules whose weights are used while the
    module itself does not run. Without one, no such use is expected.
    """
    total = sum(weight.numel() for weight in model.parameters())
    if total <= UNDIVIDED_WEIGHTS:
        return []
    candidates = [part for part in _large(model, MINIMUM_SHARE * total) if not _shares_weights(model, part)]
    if example is None:
        return candidates
    excluded = _excluded(model, candidates, example)
    return [part for part in candidates if part not in excluded]


def _large(model: nn.Module, least: float) -> Iterator[nn.Module]:
    """Modules with at least `least` weights besides those of smaller units in them."""
    assigned: set[nn.Parameter] = set()
    for part in dict.fromkeys(_parts(model)):
        weights = [weight for weight in part.parameters() if weight.ndim and weight not in assigned]
        if weights and sum(weight.numel() for weight in weights) >= least:
            assigned.update(weights)
            yield part


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Candidate modules: layers in containers, blocks as a whole, and modules that contain rows of blocks."""
    for child in module.children():
        if isinstance(child, CONTAINERS) or _has_blocks(child):
            yield from _parts(child)
        if not isinstance(child, CONTAINERS) and any(True for _ in child.parameters()):
            yield child


def _has_blocks(module: nn.Module) -> bool:
    """Whether `module` contains a sequence of modules that have modules inside themselves."""
    rows = (row for row in module.modules() if isinstance(row, nn.Sequential | nn.ModuleList))
    return any(sum(any(True for _ in block.children()) for block in row) > 1 for row in rows)


def _shares_weights(model: nn.Module, part: nn.Module) -> bool:
    """Whether a module outside `part` has one of its weights too (tied weights)."""
    inside = {*part.modules()}
    weights = {*part.parameters()}
    outside = (module for module in model.modules() if module not in inside)
    return any(weight in weights for module in outside for weight in module.parameters(recurse=False))


# --- uses of weights, observed in one run ----------------------------------------------------------------------


def _excluded(model: nn.Module, parts: list[nn.Module], example: Any) -> set[nn.Module]:
    """Modules whose weights are used from outside, or that are not called exactly once."""
    uses = _WeightUses(parts)
    hooks = [hook for part in parts for hook in (
        part.register_forward_pre_hook(uses.begin), part.register_forward_hook(uses.end, always_call=True)
    )]  # fmt: skip
    training = model.training
    model.eval()
    try:
        with generators.forked(torch.device("cpu")), restored_attributes(*model.modules()), torch.no_grad(), uses:
            model(example)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return uses.outside | {part for part in parts if uses.calls[part] != 1}


class _WeightUses(TorchFunctionMode):
    """Observes the arguments of every torch function, and which modules are running."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.outside: set[nn.Module] = set()
        self.calls = dict.fromkeys(parts, 0)
        self._active: list[nn.Module] = []
        self._owners: dict[int, list[nn.Module]] = {}
        for part in parts:
            for weight in part.parameters():
                self._owners.setdefault(id(weight), []).append(part)

    def begin(self, part: nn.Module, _inputs: Any) -> None:
        """Hook before a module's forward."""
        self.calls[part] += 1
        self._active.append(part)

    def end(self, part: nn.Module, _inputs: Any, _output: Any) -> None:
        """Hook after a module's forward."""
        self._active.remove(part)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tensors_of((args, kwargs or {})):
            owners = self._owners.get(id(tensor), ())
            self.outside.update(part for part in owners if part not in self._active)
        return func(*args, **(kwargs or {}))
