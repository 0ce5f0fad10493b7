"""The update rules on shards: as they are where each number is for itself, with an exchange where it is not.

Nothing here may read a value back from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step import torch_rules
from epochtop.engine.step.gradients import clip
from epochtop.engine.step.torch_rules import LossScaledRule, Muon
from epochtop.engine.step.update_rules import RuleState, Tensors, UpdateRule


class RowExchange(Protocol):
    """Where the rows of a weight lie: from this process's to all of them, and back."""

    def gathered(self, name: str, tensor: Tensor) -> Tensor:
        """All rows of `tensor`, which belongs to the weight `name`; enqueued. All ranks must call it."""
        ...

    def mine(self, name: str, whole: Tensor) -> Tensor:
        """The rows of this process."""
        ...


def make_update_rule(
    spec: RunSpec, shards: RowExchange, names: Sequence[str], weights: Sequence[nn.Parameter], replicated: Sequence[int]
) -> UpdateRule:
    """The rule that `spec` asks for, on this process's rows of the weights with these names.

    Those with the numbers in `replicated` are whole everywhere.
    """
    if spec.precision == "fp16":
        optimizer = torch_rules.torch_optimizer(spec, fused=True)(weights)
        return ShardedLossScaledRule(weights, optimizer, spec.clip_norm, replicated)
    if spec.optimizer != "muon":
        return torch_rules.make_update_rule(spec, weights)
    matrices = [name for name, weight in zip(names, weights, strict=True) if weight.ndim == 2]
    return Muon(
        weights,
        spec.learning_rate,
        spec.weight_decay,
        lambda own: ShardedMuon(shards, matrices, own, spec.learning_rate, spec.weight_decay),
    )


def norm_of_all(replicated: Sequence[int]) -> Callable[[Tensors], Tensor]:
    """The norm of the gradients of all processes, 0-d, from the rows of this one; enqueued. All must call it.

    Those with the numbers in `replicated` are whole everywhere.
    """
    everywhere = frozenset(replicated)

    def norm(gradients: Tensors) -> Tensor:
        own = [gradient for number, gradient in enumerate(gradients) if number not in everywhere]
        total = torch.nn.utils.get_total_norm(own).square()
        dist.all_reduce(total)
        if everywhere:
            total += torch.nn.utils.get_total_norm([gradients[number] for number in replicated]).square()
        return total.sqrt()

    return norm


class ShardedLossScaledRule(LossScaledRule):
    """A loss scale that all processes share: one that finds an overflow lets all of them skip the step."""

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        clip_norm: float,
        replicated: Sequence[int],
    ) -> None:
        super().__init__(weights, optimizer, clip_norm)
        self._norm = norm_of_all(replicated)

    def _step(self) -> None:
        optimizer = self._optimizers[0]
        self._scaler.unscale_(optimizer)
        for found in self._scaler._found_inf_per_device(optimizer).values():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        if self._clip_norm:
            gradients = [weight.grad for weight in self._parameters if weight.grad is not None]
            clip(gradients, self._clip_norm, self._norm)
        self._scaler.step(optimizer)


class ShardedMuon(UpdateRule):
    """:class:`torch.optim.Muon` on rows of matrices, as :class:`epochtop.engine.step.torch_rules.Muon` asks for it.

    Only the direction has to be whole to be made orthogonal: each process gathers it, one matrix at a time.
    """

    MOMENTUM, EPS, STEPS, COEFFICIENTS = 0.95, 1e-7, 5, (3.4445, -4.7750, 2.0315)

    def __init__(
        self,
        shards: RowExchange,
        names: Sequence[str],
        own: Sequence[Tensor],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self._shards, self._names = shards, names
        self._own = [weight.detach() for weight in own]
        self.learning_rate, self._weight_decay = learning_rate, weight_decay
        self._velocity = [torch.zeros_like(weight) for weight in self._own]

    def __call__(self, gradients: Tensors) -> None:
        from torch.optim._muon import _zeropower_via_newtonschulz as orthogonal

        torch._foreach_lerp_(self._velocity, list(gradients), 1 - self.MOMENTUM)
        ahead = torch._foreach_lerp(list(gradients), self._velocity, self.MOMENTUM)
        torch._foreach_mul_(self._own, 1 - self.learning_rate * self._weight_decay)
        for name, weight, direction in zip(self._names, self._own, ahead, strict=True):
            whole = self._shards.gathered(name, direction)
            step = orthogonal(whole, self.COEFFICIENTS, self.STEPS, self.EPS)
            rate = self.learning_rate * 0.2 * max(whole.shape) ** 0.5  # as large as AdamW's steps
            weight.add_(self._shards.mine(name, step), alpha=-rate)

    def state_dict(self) -> RuleState:
        return {"momentum_buffer": dict(enumerate(self._velocity))}

    def load_state_dict(self, memory: RuleState, steps: int) -> None:
        for number, tensor in memory.get("momentum_buffer", {}).items():
            self._velocity[number].copy_(tensor)
