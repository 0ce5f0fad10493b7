"""Update rules on shards: unchanged where they work elementwise, with an exchange where they do not.

Nothing here may read a value back from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step import torch_rules
from epochtop.engine.step.gradients import clip, norm_of
from epochtop.engine.step.torch_rules import LossScaledRule, Muon
from epochtop.engine.step.update_rules import RuleState, Tensors, UpdateRule


class RowExchange(Protocol):
    """From this rank's rows of a weight to all rows, and back."""

    def gathered(self, name: str, tensor: Tensor) -> Tensor:
        """All rows of `tensor`, which belongs to the weight `name`; enqueued. All ranks must call it."""
        ...

    def rows_of_rank(self, full: Tensor) -> Tensor:
        """This rank's rows of `full`."""
        ...


def make_update_rule(
    spec: RunSpec, shards: RowExchange, names: Sequence[str], weights: Sequence[nn.Parameter], replicated: Sequence[int]
) -> UpdateRule:
    """The update rule of `spec` on this rank's rows of the weights with these names.

    Every rank has the weights with the numbers in `replicated` in full.
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
        lambda rows: ShardedMuon(shards, matrices, rows, spec.learning_rate, spec.weight_decay),
    )


def norm_of_all(replicated: Sequence[int]) -> Callable[[Tensors], Tensor]:
    """A function from this rank's gradients to the norm of all ranks' gradients, 0-d; enqueued. All must call it.

    Every rank has the gradients with the numbers in `replicated` in full.
    """
    in_full = frozenset(replicated)

    def norm(gradients: Tensors) -> Tensor:
        sharded = [gradient for number, gradient in enumerate(gradients) if number not in in_full]
        total = norm_of(sharded).square()
        dist.all_reduce(total)
        if in_full:
            total = norm_of([gradients[number] for number in replicated]).square() + total
        return total.sqrt()

    return norm


class ShardedLossScaledRule(LossScaledRule):
    """A loss scale that all ranks share: if one rank sees an overflow, all of them skip the step."""

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
        for overflow in self._scaler._found_inf_per_device(optimizer).values():
            dist.all_reduce(overflow, dist.ReduceOp.MAX)
        if self._clip_norm:
            gradients = [cast(Tensor, weight.grad) for weight in self._parameters]
            clip(gradients, self._clip_norm, self._norm)
        self._scaler.step(optimizer)


class ShardedMuon(UpdateRule):
    """:class:`torch.optim.Muon` on rows of matrices, with the settings of :class:`epochtop.engine.step.torch_rules.Muon`.

    Only the direction must be complete to be orthogonalized: every rank gathers it, one matrix at a time.
    """

    MOMENTUM, EPS, STEPS, COEFFICIENTS = 0.95, 1e-7, 5, (3.4445, -4.7750, 2.0315)

    def __init__(
        self,
        shards: RowExchange,
        names: Sequence[str],
        rows: Sequence[Tensor],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self._shards, self._names = shards, names
        self._rows = [weight.detach() for weight in rows]
        self.learning_rate, self._weight_decay = learning_rate, weight_decay
        self._velocity = [torch.zeros_like(weight) for weight in self._rows]

    def __call__(self, gradients: Tensors) -> None:
        self.skipping(gradients)

    def skipping(self, gradients: Sequence[Tensor | None]) -> None:
        from torch.optim._muon import _zeropower_via_newtonschulz as orthogonal

        present = [(number, gradient) for number, gradient in enumerate(gradients) if gradient is not None]
        if not present:
            return
        numbers, updates = [number for number, _ in present], [gradient for _, gradient in present]
        velocity, rows = ([tensors[number] for number in numbers] for tensors in (self._velocity, self._rows))
        torch._foreach_lerp_(velocity, updates, 1 - self.MOMENTUM)
        ahead = torch._foreach_lerp(updates, velocity, self.MOMENTUM)
        torch._foreach_mul_(rows, 1 - self.learning_rate * self._weight_decay)
        names = [self._names[number] for number in numbers]
        for name, weight, direction in zip(names, rows, ahead, strict=True):
            full = self._shards.gathered(name, direction)
            step = orthogonal(full, self.COEFFICIENTS, self.STEPS, self.EPS)
            rate = self.learning_rate * 0.2 * max(full.shape) ** 0.5  # steps as large as those of AdamW
            weight.add_(self._shards.rows_of_rank(step), alpha=-rate)

    def state_dict(self) -> RuleState:
        return {"momentum_buffer": dict(enumerate(self._velocity))}

    def load_state_dict(self, state: RuleState, steps: int) -> None:
        for number, tensor in state.get("momentum_buffer", {}).items():
            self._velocity[number].copy_(tensor)
