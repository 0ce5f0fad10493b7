"""Losses by name. Every loss takes outputs and labels and returns a 0-d mean. None reads the device."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from epochtop.engine.step.step import Criterion


def criterion(name: str, weights: Tensor | None = None, smoothing: float = 0.0) -> Criterion:
    """The loss called `name`. `weights` are class weights, (classes,); `smoothing` is label smoothing, 0 … 1."""
    if name == "cross_entropy":
        if weights is None and not smoothing:
            return functional.cross_entropy
        return partial(functional.cross_entropy, weight=weights, label_smoothing=smoothing)
    if name == "next_character":
        return partial(_next_character, smoothing=smoothing)
    if name == "binary_cross_entropy":
        return partial(_binary_cross_entropy, weights=weights, smoothing=smoothing)
    return _mean_squared_error


def _next_character(logits: Tensor, following: Tensor, smoothing: float) -> Tensor:
    """Mean over all characters: logits (rows, context, characters), following characters (rows, context)."""
    return functional.cross_entropy(logits.flatten(0, 1), following.flatten().long(), label_smoothing=smoothing)


def _binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    weight = None if weights is None else torch.where(labels > 0.5, weights[1], weights[0])
    targets = labels * (1 - smoothing) + smoothing / 2 if smoothing else labels
    return functional.binary_cross_entropy_with_logits(logits.squeeze(1), targets, weight)


def _mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(output.squeeze(1), target)
