"""How one training step is executed: the update rules and the eager step.

A step enqueues work and returns the loss as a 0-d tensor on its device. It must never read a value back.
The arithmetic is that of :mod:`torch.optim`, operator for operator, so that the losses are the same bit for
bit; only the wrappers around it (hooks, zero_grad, grouping by device and dtype) are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from engine.spec import RunSpec

Tensors = tuple[Tensor, ...] | list[Tensor]

Step = Callable[[], Tensor]
"""Takes one training step; returns its loss, 0-d, detached, still on the device."""


class Update(ABC):
    """Changes parameters in place from their gradients. `learning_rate` may be set at any time."""

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        # Detached aliases share the memory and need no `no_grad` around the in-place update.
        self._parameters = [parameter.detach() for parameter in parameters]
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay

    @abstractmethod
    def __call__(self, gradients: Tensors) -> None:
        """Take one step down."""

    @abstractmethod
    def state(self) -> dict[str, list[Tensor]]:
        """What it remembers between steps: for each name one tensor a parameter; empty before the first."""


class SGD(Update):
    """:class:`torch.optim.SGD` without dampening and Nesterov."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float, momentum: float
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._momentum = momentum
        self._velocity: list[Tensor] = []

    def __call__(self, gradients: Tensors) -> None:
        down: Tensors = gradients
        if self._weight_decay:
            down = torch._foreach_add(down, self._parameters, alpha=self._weight_decay)
        if self._momentum:
            down = self._accelerate(down)
        torch._foreach_add_(self._parameters, down, alpha=-self.learning_rate)

    def _accelerate(self, down: Tensors) -> list[Tensor]:
        if self._velocity:
            torch._foreach_mul_(self._velocity, self._momentum)
            torch._foreach_add_(self._velocity, down)
        else:
            self._velocity = [gradient.clone() for gradient in down]
        return self._velocity

    def state(self) -> dict[str, list[Tensor]]:
        return {"momentum_buffer": self._velocity} if self._velocity else {}


class Adam(Update):
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

    def state(self) -> dict[str, list[Tensor]]:
        return {"exp_avg": self._mean, "exp_avg_sq": self._square}


def make_update(spec: RunSpec, parameters: Sequence[nn.Parameter]) -> Update:
    """The update rule that `spec` asks for."""
    if spec.optimizer == "sgd":
        return SGD(parameters, spec.learning_rate, spec.weight_decay, spec.momentum)
    return Adam(parameters, spec.learning_rate, spec.weight_decay, decoupled=spec.optimizer == "adamw")


class Batches:
    """Index selections of rows that lie on the device, in a new order every epoch.

    The order is drawn on the device by a generator of its own: the default generator is not touched.
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, seed: int) -> None:
        self._x, self._y, self._size = x, y, batch_size
        self._generator = torch.Generator(x.device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64, device=x.device)
        self._next = len(x)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """The next batch; the last one of an epoch may be smaller."""
        if self._next >= len(self._x):
            self._order = torch.randperm(len(self._x), generator=self._generator, device=self._x.device)
            self._next = 0
        chosen = self._order[self._next : self._next + self._size]
        self._next += self._size
        return self._x.index_select(0, chosen), self._y.index_select(0, chosen)

    def state(self) -> dict[str, Tensor]:
        """The order of the current epoch and the generator's state (uint8, on the host)."""
        return {"order": self._order, "generator": self._generator.get_state()}

    @property
    def position(self) -> int:
        """Rows of the current epoch already taken."""
        return self._next


def eager_step(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    update: Update,
    batch: Callable[[], tuple[Tensor, Tensor]],
) -> Step:
    """One ordinary step: forward, loss, gradients, update; one operator after the other."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad

    def step() -> Tensor:
        x, y = batch()
        loss = criterion(model(x), y)
        update(gradients(loss, parameters))
        return loss.detach()

    return step
