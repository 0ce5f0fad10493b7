"""How one training step is executed: forward, loss, gradients, update.

A step enqueues work and returns the loss as a 0-d tensor on its device. It must never read a value back. The
ordinary step is kept bare, since on small models every wrapper around the operators costs more than they do;
what a run does not ask for is not in its step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from epochtop.engine.step.batches import Batches
from epochtop.engine.step.fast_path import bare, differentiate
from epochtop.engine.step.torch_rules import Scaled
from epochtop.engine.step.update_rules import Tensors

Step = Callable[[], Tensor]
"""Takes one training step; returns its loss, 0-d, detached, still on the device."""
Criterion = Callable[[Tensor, Tensor], Tensor]


class Average:
    """A moving average of a model's weights: `average = decay * average + (1 - decay) * weights` after every step."""

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        """`state` are the tensors that training changes in place: weights and buffers by name."""
        names = [name for name, tensor in state.items() if tensor.is_floating_point()]
        self._weights = [state[name].detach() for name in names]
        self._share = 1 - decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
        self._averages = [self.tensors[name] for name in names]
        self._others = [(self.tensors[name], state[name]) for name in state if name not in set(names)]

    def on(self, swap: Callable[[Tensor], Tensor]) -> Average:
        """The same average of other tensors: `swap` gives one for each that it changes, for its weights and buffers."""
        twin = copy.copy(self)
        twin._weights, twin._averages = [list(map(swap, tensors)) for tensors in (self._weights, self._averages)]
        twin._others = [(swap(copied), swap(original)) for copied, original in self._others]
        return twin

    def __call__(self) -> None:
        """Take in the weights as they are now."""
        torch._foreach_lerp_(self._averages, self._weights, self._share)
        for average, original in self._others:
            average.copy_(original)


@dataclass(frozen=True)
class Parts:
    """What a step is made of."""

    model: nn.Module
    """What is called: the model itself, or a wrapper that exchanges gradients between processes."""
    criterion: Criterion
    update: Callable[[Tensors], None]
    """Changes the parameters in place from their gradients."""
    batches: Batches
    parameters: Sequence[Tensor]
    """Those that are trained."""
    accumulate: int = 1
    clip_norm: float = 0.0
    autocast: torch.dtype | None = None
    average: Average | None = None
    processes: int = 1
    backward: bool = False
    """Whether gradients come from `loss.backward()`, whose hooks exchange them, instead of `autograd.grad`."""
    silence: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)
    """Around backward passes after which gradients are not exchanged yet."""
    own: Callable[[list[Tensor]], list[Tensor]] | None = None
    """From the gradients of the parameters to those that the update takes, where it has rows of them only."""
    total_norm: Callable[[Tensors], Tensor] = torch.nn.utils.get_total_norm
    """Norm of all gradients together."""


def make_step(parts: Parts) -> Step:
    """The step to take again and again."""
    alone = parts.accumulate == 1 and parts.processes == 1 and not parts.backward
    extras = (parts.clip_norm, parts.autocast, parts.average, isinstance(parts.update, Scaled))
    if alone and not any(extras):
        return eager_step(parts.model, parts.criterion, parts.update, parts.batches, parts.parameters)
    return _updating(parts, _one(parts) if alone else _several(parts))


def eager_step(
    model: nn.Module,
    criterion: Criterion,
    update: Callable[[Tensors], None],
    batch: Callable[[], tuple[Tensor, Tensor]],
    parameters: Sequence[Tensor],
) -> Step:
    """The bare step: one batch, forward, loss, gradients, update; one operator after the other."""
    forward, gradients = bare(model), differentiate(parameters, fresh=False)

    def step() -> Tensor:
        x, y = batch()
        loss = criterion(forward(x), y)
        update(gradients(loss))
        return loss.detach()

    return step


def _updating(parts: Parts, losses: Callable[[], tuple[Tensor, Tensors]]) -> Step:
    update, average, norm = parts.update, parts.average, parts.clip_norm
    if isinstance(update, Scaled):
        norm = 0.0  # clips by itself, after it has taken the scale away

    def step() -> Tensor:
        loss, gradients = losses()
        if norm:
            clip(gradients, norm, parts.total_norm)
        update(gradients)
        if average is not None:
            average()
        return loss.detach()

    return step


def _forward(parts: Parts) -> Callable[[object, object], Tensor]:
    """The loss of a batch, in the precision that is asked for."""
    model, criterion, dtype = bare(parts.model), parts.criterion, parts.autocast
    if dtype is None:
        return lambda x, y: criterion(model(x), y)  # type: ignore[arg-type]
    kind = parts.parameters[0].device.type

    def forward(x: object, y: object) -> Tensor:
        with torch.autocast(kind, dtype):
            return criterion(model(x), y)  # type: ignore[arg-type]

    return forward


def _one(parts: Parts) -> Callable[[], tuple[Tensor, Tensors]]:
    batch, forward, gradients = parts.batches, _forward(parts), differentiate(parts.parameters)
    scale = parts.update.scale if isinstance(parts.update, Scaled) else None

    def losses() -> tuple[Tensor, Tensors]:
        loss = forward(*batch())
        return loss, gradients(loss if scale is None else scale(loss))

    return losses


def _several(parts: Parts) -> Callable[[], tuple[Tensor, Tensors]]:
    """Several batches a step, or several processes: every loss counts as much as its rows."""
    forward = _forward(parts)
    scale = parts.update.scale if isinstance(parts.update, Scaled) else None
    gather = ByBackward(parts) if parts.backward else ByGrad(parts)

    def losses() -> tuple[Tensor, Tensors]:
        total: Tensor | None = None
        batches = parts.batches.take(parts.accumulate)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else parts.silence():
                loss = forward(batch.x, batch.y) * batch.weight
                gather(loss if scale is None else scale(loss), number == 0)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total, gather.gradients()

    return losses


class ByGrad:
    """Adds up gradients that `autograd.grad` gives."""

    def __init__(self, parts: Parts) -> None:
        self._differentiate = differentiate(parts.parameters)
        self._sum: list[Tensor] = []

    def __call__(self, loss: Tensor, first: bool) -> None:
        """Take in the gradients of a loss; the `first` one of a step begins anew."""
        gradients = self._differentiate(loss)
        if first:
            self._sum = list(gradients)
        else:
            torch._foreach_add_(self._sum, gradients)

    def gradients(self) -> list[Tensor]:
        """Their sum, one a parameter."""
        return self._sum


class ByBackward:
    """Lets `backward` add them up in the parameters, where hooks exchange them between processes."""

    def __init__(self, parts: Parts) -> None:
        self._parameters = list(parts.parameters)
        self._own = parts.own

    def __call__(self, loss: Tensor, first: bool) -> None:
        """Take in the gradients of a loss; the `first` one of a step begins anew."""
        if first:
            for parameter in self._parameters:
                parameter.grad = None
        loss.backward()

    def gradients(self) -> list[Tensor]:
        """Their sum over batches and mean over processes, one a parameter."""
        # a parameter that this batch did not use has no gradient
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        return found if self._own is None else self._own(found)


def clip(
    gradients: Tensors, norm: float, total_norm: Callable[[Tensors], Tensor] = torch.nn.utils.get_total_norm
) -> None:
    """Scale gradients in place so that their norm is at most `norm`: :func:`torch.nn.utils.clip_grad_norm_` without a read."""
    total = total_norm(gradients)
    torch._foreach_mul_(list(gradients), torch.clamp(norm / (total + 1e-6), max=1.0))
