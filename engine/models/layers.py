"""Layers that several models share: activations, pixels to numbers, blocks that are computed twice to save memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def activation_layers(name: str) -> list[nn.Module]:
    """The activation called `name` as a list to splice into a Sequential; empty for `none`."""
    return [ACTIVATIONS[name]()] if name != "none" else []


def dropout_layers(share: float) -> list[nn.Module]:
    """Dropout as a list to splice into a Sequential; empty for 0."""
    return [nn.Dropout(share)] if share else []


class Pixels(nn.Module):
    """Bytes 0 … 255 of (rows, channels, height, width) to numbers: `(x / 255 - mean) / std`, a figure a channel.

    Without figures they become 0 … 1. Both are buffers, so a saved model knows them.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        means, spreads = tuple(mean) or (0.0,), tuple(std) or (1.0,)
        safe = [spread if spread > 0 else 1.0 for spread in spreads]  # a channel of one value stays what it is
        self.register_buffer("scale", _a_figure_a_channel([1 / (255 * spread) for spread in safe]))
        self.register_buffer(
            "shift", _a_figure_a_channel([-mean / spread for mean, spread in zip(means, safe, strict=True)])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of the buffers' dtype, in the memory format of `x`."""
        return torch.addcmul(self.shift, x.to(self.scale.dtype), self.scale)


def _a_figure_a_channel(figures: list[float]) -> Tensor:
    return torch.tensor(figures, dtype=torch.float32).view(-1, 1, 1)


class Recomputed(nn.Sequential):
    """A Sequential whose parts are computed again in the backward pass instead of being kept, where `active`.

    A part is `layers_each` layers; the last one is kept, since the backward pass begins with it. Names of the weights
    are those of a plain Sequential. Where the layers draw random numbers (`draws`) they get the same ones again; batch
    statistics are counted once. Source of the method: Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost"; torch.utils.checkpoint without reentrance, the only form that
    :func:`torch.autograd.grad` can use.
    """

    def __init__(self, *layers: nn.Module, active: bool, layers_each: int = 1, draws: bool = False) -> None:
        super().__init__(*layers)
        self.active = active
        self._layers_each = layers_each
        self._draws = draws

    def parts(self) -> list[list[nn.Module]]:
        """The layers of each part, in order."""
        layers, each = list(self), self._layers_each
        return [layers[first : first + each] for first in range(0, len(layers), each)]

    def forward(self, x: Tensor) -> Tensor:
        """As a Sequential."""
        if not (self.active and self.training and torch.is_grad_enabled()):
            return _through(list(self), x)
        *again, kept = self.parts()
        for layers in again:
            x = checkpoint(
                _through,
                layers,
                x,
                use_reentrant=False,
                preserve_rng_state=self._draws,
                context_fn=_Contexts(layers),
            )
        return _through(kept, x)


def _through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class _Contexts:
    """Makes what surrounds the first and the second computation of a part."""

    def __init__(self, layers: list[nn.Module]) -> None:
        every = (module for layer in layers for module in layer.modules())
        self._norms = [norm for norm in every if isinstance(norm, _BatchNorm) and norm.track_running_stats]

    def __call__(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _without_counting(self._norms)


@contextmanager
def _without_counting(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch norms use the batch's statistics without taking them into their running ones a second time.

    A momentum of 0 leaves those as they are; without them autograd would save other tensors than the first time.
    """
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, batches
