"""The networks a run can train, and what they weigh before they are built."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from engine.spec import RunSpec

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

OPTIMIZER_COPIES = {"sgd": 0, "adam": 2, "adamw": 2}
"""Tensors of the parameters' size that an optimizer keeps; momentum adds one to sgd."""


def mlp(features: int, hidden: tuple[int, ...], outputs: int, activation: str) -> nn.Sequential:
    """A multi-layer perceptron from (rows, features) to (rows, outputs), without a last activation."""
    layers: list[nn.Module] = []
    widths = (features, *hidden)
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def parameter_count(features: int, hidden: tuple[int, ...], outputs: int) -> int:
    """Parameters of :func:`mlp`, computed without building it."""
    return sum(wide * narrow + narrow for wide, narrow in pairwise((features, *hidden, outputs)))


def memory_bytes(spec: RunSpec, features: int, outputs: int, batch_rows: int) -> int:
    """Bytes of weights, gradients, optimizer state and activations of one step in float32."""
    copies = 2 + OPTIMIZER_COPIES[spec.optimizer] + (1 if spec.momentum else 0)
    activations = 2 * batch_rows * (2 * sum(spec.hidden) + outputs)
    return 4 * (copies * parameter_count(features, spec.hidden, outputs) + activations)
