"""The extra state of a model's modules (`get_extra_state`), kept apart from its weights and buffers.

torch lets it be any object. Checkpoints hold tensors and plain values only, as for a task's own state. Never pickles anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from epochtop.engine.tasks import user_state

PREFIX = "extra."
"""Beginning of the tensors' names in a checkpoint."""
_KEY = "_extra_state"
"""Last part of the names that torch gives to extra states."""


def weights_of(model: nn.Module, keep_vars: bool = False) -> dict[str, Tensor]:
    """The weights and buffers in the `state_dict` of a model, without extra states."""
    return {name: value for name, value in model.state_dict(keep_vars=keep_vars).items() if not _is_extra(name)}


def extras_of(model: nn.Module) -> dict[str, Any]:
    """The extra states of the modules of a model, by their name in its `state_dict`."""
    return {
        f"{name}.{_KEY}" if name else _KEY: module.get_extra_state()
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }


def encode(model: nn.Module) -> dict[str, Tensor]:
    """The extra states of a model as named tensors for a checkpoint. Raises TypeError for other contents than those of tasks."""
    return user_state.encode(extras_of(model), PREFIX, lambda name: f"get_extra_state() of {_layer(name)}")


def decode(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The extra states in a checkpoint's tensors, by name; empty if it has none."""
    return user_state.decode(tensors, PREFIX) or {}


def load(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the extra states in a checkpoint to the modules of a model, and nothing else."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, value in decode(tensors).items():
        modules[name.removesuffix(_KEY).removesuffix(".")].set_extra_state(value)


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == _KEY


def _layer(name: str) -> str:
    layer = name.removesuffix(_KEY).removesuffix(".")
    return f"layer {layer!r}" if layer else "the model"
