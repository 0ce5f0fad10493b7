"""Losses by name. Every loss takes outputs and labels and returns a 0-d mean. None reads the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from epochtop.engine.models.checked_rows import IGNORED, class_loss_options
from epochtop.engine.step.step import Criterion

LossWeight = Callable[[Tensor, Tensor], Tensor]
"""From outputs and labels to the weight of this batch in the mean over all batches, 0-d."""


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


# --- ignored labels ------------------------------------------------------------------------------------------


def labeled_cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """torch's cross entropy, but 0 instead of NaN for a batch without any label; its gradients are 0 in both cases."""
    count = (labels != IGNORED).float().sum()
    return torch.where(count > 0, functional.cross_entropy(output, labels), 0.0)


def loss_weight(loss: object) -> LossWeight | None:
    """The weight of a batch for a loss of torch that ignores labels or weighs classes; None if its rows are the weight."""
    options = class_loss_options(loss)
    if options is None or options.get("reduction", "mean") != "mean":
        return None
    return partial(_weight, ignored=options.get("ignore_index", IGNORED), class_weights=options.get("weight"))


def _weight(output: Tensor, labels: Tensor, ignored: int, class_weights: Tensor | None) -> Tensor:
    """The divisor of torch's mean: the number of labels that count, or the sum of the weights of their classes."""
    if labels.is_floating_point():  # probabilities of classes
        return torch.full((), labels.numel() / output.shape[-1 if output.ndim == 1 else 1], device=labels.device)
    counted = labels != ignored
    if class_weights is None:
        return counted.sum()
    return (class_weights[torch.where(counted, labels, 0)] * counted).sum()
