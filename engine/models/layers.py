"""Layers that several models share: activations, pixel scaling, activation checkpointing. Never reads data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
"""Activation modules by their name in a spec."""


def activation_layers(name: str) -> list[nn.Module]:
    """The activation called `name` as a list of layers; empty for `none`."""
    return [ACTIVATIONS[name]()] if name != "none" else []


def dropout_layers(probability: float) -> list[nn.Module]:
    """Dropout as a list of layers; empty for 0."""
    return [nn.Dropout(probability)] if probability else []


class Pixels(nn.Module):
    """Standardizes pixels: x (rows, channels, height, width) becomes `(x / largest - mean) / std`, per channel.

    `largest` is 255 for bytes. Without statistics, these become 0 to 1. The statistics are buffers, so they are saved
    with the model.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], largest: float = 255.0) -> None:
        super().__init__()
        means, spreads = tuple(mean) or (0.0,), tuple(std) or (1.0,)
        safe = [spread if spread > 0 else 1.0 for spread in spreads]  # a constant channel is only shifted
        self.register_buffer("scale", _per_channel([1 / (largest * spread) for spread in safe]))
        self.register_buffer("shift", _per_channel([-mean / spread for mean, spread in zip(means, safe, strict=True)]))

    def forward(self, x: Tensor) -> Tensor:
        """The result has the buffers' dtype and the memory format of `x`."""
        return torch.addcmul(self.shift, x.to(self.scale.dtype), self.scale)


class EmbeddedColumns(nn.Module):
    """Replaces inputs that are numbers of categories by vectors: x (rows, inputs) becomes (rows, outputs), vectors last.

    Category 0 is the unknown one; its vector stays 0. The others begin as fastai's: normal with a deviation of 0.01, cut at
    two deviations.
    """

    others: Tensor

    def __init__(self, inputs: int, embedded: Mapping[int, tuple[int, int]]) -> None:
        """`embedded` has the number of known categories and the size of the vectors by the position of the input."""
        super().__init__()
        self._places = tuple(embedded)
        others = [place for place in range(inputs) if place not in embedded]
        self.register_buffer("others", torch.tensor(others, dtype=torch.int64), persistent=False)
        self.embeddings = nn.ModuleList(
            nn.Embedding(categories + 1, size, padding_idx=0) for categories, size in embedded.values()
        )
        for table in self.embeddings:
            with torch.no_grad():
                nn.init.trunc_normal_(table.weight, std=0.01, a=-0.02, b=0.02)  # type: ignore[arg-type]
                table.weight[0] = 0  # type: ignore[operator]
        self.outputs = len(others) + sum(size for _, size in embedded.values())

    def forward(self, x: Tensor) -> Tensor:
        """The inputs that stay, then the vectors in the order of their columns."""
        vectors = [table(x[:, place].long()) for place, table in zip(self._places, self.embeddings, strict=True)]
        return torch.cat([x.index_select(1, self.others), *vectors], dim=1)


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


class Recomputed(nn.Sequential):
    """A Sequential that, if `active`, recomputes activations in the backward pass instead of storing them.

    Layers are grouped in segments of `segment_length`. The last segment is stored, since the backward pass starts with it.
    Weights have the names of a plain Sequential. With `draws`, random numbers are repeated; batch statistics are counted
    once. Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". Uses torch.utils.checkpoint without
    reentrance, the only form that supports :func:`torch.autograd.grad`.
    """

    def __init__(self, *layers: nn.Module, active: bool, segment_length: int = 1, draws: bool = False) -> None:
        super().__init__(*layers)
        self.active = active
        self._segment_length = segment_length
        self._draws = draws

    def segments(self) -> list[list[nn.Module]]:
        """The layers of each segment, in order."""
        layers, length = list(self), self._segment_length
        return [layers[first : first + length] for first in range(0, len(layers), length)]

    def forward(self, x: Tensor) -> Tensor:
        """The output of the layers, one after the other."""
        if not (self.active and self.training and torch.is_grad_enabled()):
            return _through(list(self), x)
        *recomputed, stored = self.segments()
        for layers in recomputed:
            x = checkpoint(
                _through,
                layers,
                x,
                use_reentrant=False,
                preserve_rng_state=self._draws,
                context_fn=_Contexts(layers),
            )
        return _through(stored, x)


def _through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class _Contexts:
    """The contexts of the first and the second computation of a segment."""

    def __init__(self, layers: list[nn.Module]) -> None:
        modules = (module for layer in layers for module in layer.modules())
        self._norms = [norm for norm in modules if isinstance(norm, _BatchNorm) and norm.track_running_stats]

    def __call__(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _without_running_statistics(self._norms)


@contextmanager
def _without_running_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Keep batch norms from adding the batch to their running statistics a second time.

    A momentum of 0 leaves them unchanged. Without running statistics, autograd would save other tensors than before.
    """
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, batches
