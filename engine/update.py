"""The update rules: from gradients to new parameters, in place.

SGD, Adam and AdamW are the arithmetic of :mod:`torch.optim`, operator for operator, so that the losses are the
same bit for bit; only the wrappers around it (hooks, zero_grad, grouping by device and dtype) are left out. The
others are torch's own, in :mod:`engine.optimizers`. Nothing here may read a value back from the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Tensors = tuple[Tensor, ...] | list[Tensor]
Memory = Mapping[str, Mapping[int, Tensor]]
"""What an optimizer remembers: for each name, a tensor for each parameter, by the parameter's number."""


class Update(ABC):
    """Changes parameters in place from their gradients. `learning_rate` may be set at any time."""

    learning_rate: float

    @abstractmethod
    def __call__(self, gradients: Tensors) -> None:
        """Take one step down."""

    @abstractmethod
    def memory(self) -> Memory:
        """What it remembers between steps; empty before the first."""

    @abstractmethod
    def recall(self, memory: Memory, steps: int) -> None:
        """Take up what an update remembered after `steps` steps."""


class Lean(Update):
    """An update of ours: detached aliases share the parameters' memory and need no `no_grad` around them."""

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        self._parameters = [parameter.detach() for parameter in parameters]
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay


class SGD(Lean):
    """:class:`torch.optim.SGD` without dampening."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        learning_rate: float,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._momentum, self._nesterov = momentum, nesterov
        self._velocity: list[Tensor] = []

    def __call__(self, gradients: Tensors) -> None:
        down: Tensors = gradients
        if self._weight_decay:
            down = torch._foreach_add(down, self._parameters, alpha=self._weight_decay)
        if self._momentum:
            down = self._accelerate(down)
        torch._foreach_add_(self._parameters, down, alpha=-self.learning_rate)

    def _accelerate(self, down: Tensors) -> Tensors:
        if self._velocity:
            torch._foreach_mul_(self._velocity, self._momentum)
            torch._foreach_add_(self._velocity, down)
        else:
            self._velocity = [gradient.clone() for gradient in down]
        return torch._foreach_add(down, self._velocity, alpha=self._momentum) if self._nesterov else self._velocity

    def memory(self) -> Memory:
        return {"momentum_buffer": dict(enumerate(self._velocity))} if self._velocity else {}

    def recall(self, memory: Memory, steps: int) -> None:
        self._velocity = _in_order(memory.get("momentum_buffer", {}))


class Adam(Lean):
    """:class:`torch.optim.Adam`, or AdamW with `decoupled` weight decay; betas 0.9 and 0.999, eps 1e-8."""

    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float, decoupled: bool
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._decoupled = decoupled
        self._steps = 0
        self._mean = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]

    def __call__(self, gradients: Tensors) -> None:
        self._steps += 1
        down: Tensors = gradients
        if self._weight_decay and self._decoupled:
            torch._foreach_mul_(self._parameters, 1 - self.learning_rate * self._weight_decay)
        elif self._weight_decay:
            down = torch._foreach_add(down, self._parameters, alpha=self._weight_decay)
        torch._foreach_lerp_(self._mean, down, 1 - self.BETA1)
        torch._foreach_mul_(self._square, self.BETA2)
        torch._foreach_addcmul_(self._square, down, down, 1 - self.BETA2)
        spread = torch._foreach_sqrt(self._square)
        torch._foreach_div_(spread, (1 - self.BETA2**self._steps) ** 0.5)
        torch._foreach_add_(spread, self.EPS)
        size = self.learning_rate / (1 - self.BETA1**self._steps)
        torch._foreach_addcdiv_(self._parameters, self._mean, spread, -size)

    def memory(self) -> Memory:
        return {"exp_avg": dict(enumerate(self._mean)), "exp_avg_sq": dict(enumerate(self._square))}

    def recall(self, memory: Memory, steps: int) -> None:
        self._steps = steps
        self._mean, self._square = (_in_order(memory.get(name, {})) for name in ("exp_avg", "exp_avg_sq"))


def _in_order(tensors: Mapping[int, Tensor]) -> list[Tensor]:
    return [tensors[number] for number in sorted(tensors)]
