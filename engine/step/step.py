"""How one training step is executed: forward, loss, gradients, update.

A step enqueues work and returns the loss as a 0-d tensor on its device. It must never read a value back. A step contains
only what its run needs, because on small models every wrapper costs more than the operators inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from epochtop.engine.step.batches import Batches
from epochtop.engine.step.ema import WeightAverage
from epochtop.engine.step.fast_path import gradients_of, unwrapped
from epochtop.engine.step.gradients import AutogradAccumulator, BackwardAccumulator, Localize, clip, norm_of
from epochtop.engine.step.torch_rules import LossScaledRule
from epochtop.engine.step.update_rules import Tensors, UpdateRule

Step = Callable[[], Tensor]
"""Takes one training step; returns its loss, 0-d, detached, still on the device."""
Criterion = Callable[[Tensor, Tensor], Tensor]
"""A loss: outputs and labels to a mean, 0-d."""


@dataclass(frozen=True)
class StepParts:
    """The parts of a step."""

    model: nn.Module
    """The model, or a wrapper that exchanges gradients between processes."""
    criterion: Criterion
    update: Callable[[Tensors], None]
    """Changes the parameters in place from their gradients."""
    batches: Batches
    parameters: Sequence[Tensor]
    """The trained parameters."""
    accumulate: int = 1
    """Batches per step."""
    clip_norm: float = 0.0
    """Largest norm of all gradients; 0 does not clip."""
    autocast: torch.dtype | None = None
    average: WeightAverage | None = None
    loss_average: WeightAverage | None = None
    """The moving average of the tensors of the loss, if it has any."""
    processes: int = 1
    optional_gradients: bool = False
    """Whether a batch may leave parameters without a gradient, as in a mixture of experts. Steps skip them."""
    backward: bool = False
    """Whether gradients come from `loss.backward()`, whose hooks exchange them, instead of `autograd.grad`."""
    no_sync: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)
    """Context for backward passes after which gradients are not exchanged yet."""
    localize: Localize | None = None
    """From the gradients of the parameters to those of this rank's rows, if weights are sharded."""
    total_norm: Callable[[Tensors], Tensor] = norm_of
    """Function from all gradients to their norm; parameters may have none."""


def make_step(parts: StepParts) -> Step:
    """The step of these parts, to be called repeatedly."""
    alone = parts.accumulate == 1 and parts.processes == 1 and not parts.backward
    extras = (parts.clip_norm, parts.autocast, parts.average, isinstance(parts.update, LossScaledRule))
    if alone and not any(extras):
        update, optional = update_of(parts), parts.optional_gradients
        return eager_step(parts.model, parts.criterion, update, parts.batches, parts.parameters, optional)
    return _updating(parts, _one_batch(parts) if alone else _several_batches(parts))


def eager_step(
    model: nn.Module,
    criterion: Criterion,
    update: Callable[[Tensors], None],
    batch: Callable[[], tuple[Tensor, Tensor]],
    parameters: Sequence[Tensor],
    optional: bool = False,
) -> Step:
    """The plain step: one batch, forward, loss, gradients, update; one operator after the other.

    With `optional`, a batch may leave parameters without a gradient.
    """
    forward, gradients = unwrapped(model), gradients_of(parameters, fresh=False, optional=optional)

    def step() -> Tensor:
        x, y = batch()
        loss = criterion(forward(x), y)
        update(gradients(loss))
        return loss.detach()

    return step


def update_of(parts: StepParts) -> Callable[[Tensors], None]:
    """The update of a step, which skips parameters without a gradient if there may be some."""
    if parts.optional_gradients and isinstance(parts.update, UpdateRule):
        return parts.update.skipping
    return parts.update


def _updating(parts: StepParts, losses: Callable[[], tuple[Tensor, Tensors]]) -> Step:
    update, norm = update_of(parts), parts.clip_norm
    averages = [average for average in (parts.average, parts.loss_average) if average is not None]
    if isinstance(parts.update, LossScaledRule):
        norm = 0.0  # it clips itself, after it has removed the scale

    def step() -> Tensor:
        loss, gradients = losses()
        if norm:
            clip(gradients, norm, parts.total_norm)
        update(gradients)
        for average in averages:
            average()
        return loss.detach()

    return step


def _forward(parts: StepParts) -> Callable[[object, object], Tensor]:
    """A function from a batch to its loss, in the requested precision."""
    model, criterion, dtype = unwrapped(parts.model), parts.criterion, parts.autocast
    if dtype is None:
        return lambda x, y: criterion(model(x), y)  # type: ignore[arg-type]
    kind = parts.parameters[0].device.type

    def forward(x: object, y: object) -> Tensor:
        with torch.autocast(kind, dtype):
            return criterion(model(x), y)  # type: ignore[arg-type]

    return forward


def _one_batch(parts: StepParts) -> Callable[[], tuple[Tensor, Tensors]]:
    batch, forward = parts.batches, _forward(parts)
    gradients = gradients_of(parts.parameters, optional=parts.optional_gradients)
    scale = parts.update.scale if isinstance(parts.update, LossScaledRule) else None

    def losses() -> tuple[Tensor, Tensors]:
        loss = forward(*batch())
        return loss, gradients(loss if scale is None else scale(loss))

    return losses


def _several_batches(parts: StepParts) -> Callable[[], tuple[Tensor, Tensors]]:
    """For several batches per step, or several processes: losses are weighted by their rows."""
    forward = _forward(parts)
    scale = parts.update.scale if isinstance(parts.update, LossScaledRule) else None
    accumulate = (
        BackwardAccumulator(parts.parameters, parts.localize)
        if parts.backward
        else AutogradAccumulator(parts.parameters, parts.optional_gradients)
    )

    def losses() -> tuple[Tensor, Tensors]:
        total: Tensor | None = None
        batches = parts.batches.next_batches(parts.accumulate)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else parts.no_sync():
                loss = forward(batch.x, batch.y) * batch.weight
                accumulate(loss if scale is None else scale(loss), number == 0)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total, accumulate.gradients()

    return losses
