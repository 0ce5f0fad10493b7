"""The update rules: from gradients to new parameters, in place.

SGD, Adam and AdamW are the arithmetic of :mod:`torch.optim`, operator for operator, so that the losses are the
same bit for bit; only the wrappers around it (hooks, zero_grad, grouping by device and dtype) are left out. The
others are torch's own, in :mod:`epochtop.engine.step.torch_rules`. Nothing here may read a value back from the device.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...] | list[Tensor]
RuleState = Mapping[str, Mapping[int, Tensor]]
"""What an optimizer remembers: for each name, a tensor for each parameter, by the parameter's number."""


class UpdateRule(ABC):
    """Changes parameters in place from their gradients. `learning_rate` may be set at any time."""

    learning_rate: float

    @abstractmethod
    def __call__(self, gradients: Tensors) -> None:
        """Take one step down."""

    @abstractmethod
    def state_dict(self) -> RuleState:
        """What it remembers between steps; empty before the first."""

    @abstractmethod
    def load_state_dict(self, memory: RuleState, steps: int) -> None:
        """Take up what an update remembered after `steps` steps."""


Factor = float | Tensor
"""A number that changes from step to step: from the host, or 0-d on the device where a step is recorded once and replayed."""


class InPlaceRule(UpdateRule):
    """An update of ours: detached aliases share the parameters' memory and need no `no_grad` around them.

    What it multiplies with in a step is kept apart (:meth:`factors`) from what it does with it (:meth:`apply`), so
    that a recorded step is the same arithmetic with other numbers. `steps` counts the steps that were taken.
    """

    aging = False
    """Whether the factors depend on the number of steps."""

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float) -> None:
        self._parameters = [parameter.detach() for parameter in parameters]
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay
        self.steps = 0

    def __call__(self, gradients: Tensors) -> None:
        factors = self.factors(self.learning_rate, self.steps)
        self.steps += 1
        self.apply(gradients, factors)

    @abstractmethod
    def factors(self, learning_rate: float, steps: int) -> tuple[float, ...]:
        """What the step after `steps` steps multiplies with."""

    @abstractmethod
    def apply(self, gradients: Tensors, factors: Sequence[Factor]) -> None:
        """Take one step down with these factors."""

    def tensors(self) -> list[Tensor]:
        """Everything that a step changes: the parameters, then what is remembered."""
        return [*self._parameters, *(tensor for slot in self.state_dict().values() for tensor in slot.values())]

    @property
    def parameters(self) -> list[Tensor]:
        """Detached aliases of those it changes."""
        return self._parameters

    def on(self, swap: Callable[[Tensor], Tensor]) -> Self:
        """The same rule for other tensors, one for each of :meth:`tensors`."""
        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list):
                setattr(twin, name, [swap(tensor) for tensor in value])
        return twin

    def load_state_dict(self, memory: RuleState, steps: int) -> None:
        self.steps = steps
        self._recall({name: _in_order(tensors) for name, tensors in memory.items()})

    @abstractmethod
    def _recall(self, slots: Mapping[str, list[Tensor]]) -> None: ...

    def _decayed(self, gradients: Tensors) -> Tensors:
        """Gradients with those of the L2 penalty."""
        if not self._weight_decay:
            return gradients
        return torch._foreach_add(gradients, self._parameters, alpha=self._weight_decay)


class SGD(InPlaceRule):
    """:class:`torch.optim.SGD` without dampening."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        learning_rate: float,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._momentum, self._nesterov = momentum, nesterov
        # zeros, where torch begins with the first gradient: the same after the first step
        self._velocity = [torch.zeros_like(parameter) for parameter in self._parameters] if momentum else []

    def factors(self, learning_rate: float, steps: int) -> tuple[float, ...]:
        return (-learning_rate,)

    def apply(self, gradients: Tensors, factors: Sequence[Factor]) -> None:
        down = self._decayed(gradients)
        if self._momentum:
            down = self._accelerate(down)
        _move(self._parameters, down, factors[0])

    def _accelerate(self, down: Tensors) -> Tensors:
        torch._foreach_mul_(self._velocity, self._momentum)
        torch._foreach_add_(self._velocity, down)
        return torch._foreach_add(down, self._velocity, alpha=self._momentum) if self._nesterov else self._velocity

    def state_dict(self) -> RuleState:
        return {"momentum_buffer": dict(enumerate(self._velocity))} if self._velocity else {}

    def _recall(self, slots: Mapping[str, list[Tensor]]) -> None:
        self._velocity = slots.get("momentum_buffer", [])


class Adam(InPlaceRule):
    """:class:`torch.optim.Adam`, or AdamW with `decoupled` weight decay; betas 0.9 and 0.999, eps 1e-8."""

    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
    aging = True

    def __init__(
        self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float, decoupled: bool
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._decoupled = decoupled
        self._mean = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]

    def factors(self, learning_rate: float, steps: int) -> tuple[float, ...]:
        """Size of the step, what its spread is divided by, and what is left of the parameters."""
        size = -learning_rate / (1 - self.BETA1 ** (steps + 1))
        return size, (1 - self.BETA2 ** (steps + 1)) ** 0.5, 1 - learning_rate * self._weight_decay

    def apply(self, gradients: Tensors, factors: Sequence[Factor]) -> None:
        size, correction, left = factors
        down = gradients
        if self._weight_decay and self._decoupled:
            torch._foreach_mul_(self._parameters, left)
        else:
            down = self._decayed(gradients)
        torch._foreach_lerp_(self._mean, down, 1 - self.BETA1)
        torch._foreach_mul_(self._square, self.BETA2)
        torch._foreach_addcmul_(self._square, down, down, 1 - self.BETA2)
        spread = torch._foreach_sqrt(self._square)
        torch._foreach_div_(spread, correction)
        torch._foreach_add_(spread, self.EPS)
        if isinstance(size, Tensor):
            _move(self._parameters, torch._foreach_div(self._mean, spread), size)
        else:
            torch._foreach_addcdiv_(self._parameters, self._mean, spread, size)

    def state_dict(self) -> RuleState:
        return {"exp_avg": dict(enumerate(self._mean)), "exp_avg_sq": dict(enumerate(self._square))}

    def _recall(self, slots: Mapping[str, list[Tensor]]) -> None:
        self._mean, self._square = slots.get("exp_avg", []), slots.get("exp_avg_sq", [])


class RMSprop(InPlaceRule):
    """:class:`torch.optim.RMSprop`, not centered; alpha 0.99, eps 1e-8."""

    ALPHA, EPS = 0.99, 1e-8

    def __init__(
        self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float = 0.0, momentum: float = 0.0
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._momentum = momentum
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._velocity = [torch.zeros_like(parameter) for parameter in self._parameters] if momentum else []

    def factors(self, learning_rate: float, steps: int) -> tuple[float, ...]:
        return (-learning_rate,)

    def apply(self, gradients: Tensors, factors: Sequence[Factor]) -> None:
        (size,) = factors
        down = self._decayed(gradients)
        torch._foreach_mul_(self._square, self.ALPHA)
        torch._foreach_addcmul_(self._square, down, down, 1 - self.ALPHA)
        spread = torch._foreach_sqrt(self._square)
        torch._foreach_add_(spread, self.EPS)
        if self._momentum:
            torch._foreach_mul_(self._velocity, self._momentum)
            torch._foreach_addcdiv_(self._velocity, down, spread, 1.0)
            _move(self._parameters, self._velocity, size)
        elif isinstance(size, Tensor):
            _move(self._parameters, torch._foreach_div(down, spread), size)
        else:
            torch._foreach_addcdiv_(self._parameters, down, spread, size)

    def state_dict(self) -> RuleState:
        found = {"square_avg": dict(enumerate(self._square))}
        return found | ({"momentum_buffer": dict(enumerate(self._velocity))} if self._momentum else {})

    def _recall(self, slots: Mapping[str, list[Tensor]]) -> None:
        self._square, self._velocity = slots.get("square_avg", []), slots.get("momentum_buffer", [])


def _move(parameters: list[Tensor], down: Tensors, size: Factor) -> None:
    """`parameters += size * down`, rounded once where `size` is from the host and twice where it is a tensor."""
    if isinstance(size, Tensor):
        torch._foreach_add_(parameters, torch._foreach_mul(down, size))
    else:
        torch._foreach_add_(parameters, down, alpha=size)


def _in_order(tensors: Mapping[int, Tensor]) -> list[Tensor]:
    return [tensors[number] for number in sorted(tensors)]
