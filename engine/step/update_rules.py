"""The update rules: from gradients to new parameters, in place.

SGD, Adam, AdamW and RMSprop use the arithmetic of :mod:`torch.optim`, operator for operator, so that losses are equal bit
for bit. Only the wrappers (hooks, zero_grad, grouping by device and dtype) are left out. Other optimizers are those of
torch, in :mod:`epochtop.engine.step.torch_rules`. Nothing here may read a value back from the device.
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
"""Optimizer state: for every name, tensors by the number of their parameter."""


class UpdateRule(ABC):
    """Changes parameters in place from their gradients. `learning_rate` may be set at any time."""

    learning_rate: float

    @abstractmethod
    def __call__(self, gradients: Tensors) -> None:
        """Take one step."""

    def skipping(self, gradients: Sequence[Tensor | None]) -> None:
        """Take one step as the optimizers of torch do: parameters without a gradient stay as they are, and so does their state."""
        raise NotImplementedError

    @abstractmethod
    def state_dict(self) -> RuleState:
        """State between steps; may be empty before the first."""

    @abstractmethod
    def load_state_dict(self, state: RuleState, steps: int) -> None:
        """Restore the state after `steps` steps."""


STEP_COUNTS = "step"
"""Name of the step counts in an optimizer state."""

Factor = float | Tensor
"""A number that changes from step to step: on the host, or 0-d on the device if a step is recorded and replayed."""


class InPlaceRule(UpdateRule):
    """A rule that changes detached aliases of the parameters, so that it needs no `no_grad`.

    The numbers of a step (:meth:`factors`) are separate from its arithmetic (:meth:`apply`), so that a recorded step can be
    replayed with other numbers. `steps` counts the steps taken.
    """

    factors_change = False
    """Whether the factors depend on the number of steps."""
    complex_as_real = False
    """Whether real and imaginary parts are updated as two real numbers, as torch does for squares of gradients."""

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float) -> None:
        self._parameters = [parameter.detach() for parameter in parameters]
        self._viewed = self.complex_as_real and any(parameter.is_complex() for parameter in parameters)
        if self._viewed:
            self._parameters = _as_real(self._parameters)
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay
        self.steps = 0
        self.missed: dict[int, int] = {}
        """Steps in which a parameter had no gradient, by its number; without those that had one in every step."""

    def __call__(self, gradients: Tensors) -> None:
        factors = self.factors(self.learning_rate, self.steps)
        self.steps += 1
        self.apply(gradients, factors)

    def skipping(self, gradients: Sequence[Tensor | None]) -> None:
        present = {number: gradient for number, gradient in enumerate(gradients) if gradient is not None}
        if len(present) == len(gradients) and not self.missed:
            self(list(present.values()))
            return
        by_missed: dict[int, list[int]] = {}
        for number in present:
            by_missed.setdefault(self.missed.get(number, 0), []).append(number)
        for missed, numbers in by_missed.items():
            factors = self.factors(self.learning_rate, self.steps - missed)
            self._part(numbers).apply([present[number] for number in numbers], factors)
        for number in range(len(gradients)):
            if number not in present:
                self.missed[number] = self.missed.get(number, 0) + 1
        self.steps += 1

    def _part(self, numbers: Sequence[int]) -> Self:
        """The same rule for the parameters with these numbers only."""
        part = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list) and value:
                setattr(part, name, [value[number] for number in numbers])
        return part

    @abstractmethod
    def factors(self, learning_rate: float, steps: int) -> tuple[float, ...]:
        """Factors of the step after `steps` steps."""

    @abstractmethod
    def apply(self, gradients: Tensors, factors: Sequence[Factor]) -> None:
        """Take one step with these factors."""

    def tensors(self) -> list[Tensor]:
        """Everything that a step changes: the parameters, then the state."""
        return [*self._parameters, *(tensor for slot in self.state_dict().values() for tensor in slot.values())]

    @property
    def parameters(self) -> list[Tensor]:
        """Detached aliases of the parameters."""
        return self._parameters

    def on(self, swap: Callable[[Tensor], Tensor]) -> Self:
        """The same rule for other tensors: `swap` maps every one of :meth:`tensors` to its replacement."""
        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list):
                setattr(twin, name, [swap(tensor) for tensor in value])
        return twin

    def load_state_dict(self, state: RuleState, steps: int) -> None:
        self.steps = steps
        counts = {number: int(count) for number, count in state.get(STEP_COUNTS, {}).items()}
        self.missed = {number: steps - count for number, count in counts.items() if count != steps}
        slots = {name: _in_order(tensors) for name, tensors in state.items() if name != STEP_COUNTS}
        self._restore({name: _as_real(tensors) for name, tensors in slots.items()} if self._viewed else slots)

    def _step_counts(self) -> RuleState:
        """Steps of every parameter, as torch counts them, if some parameters missed steps."""
        if not self.missed:
            return {}
        counts = [self.steps - self.missed.get(number, 0) for number in range(len(self._parameters))]
        return {STEP_COUNTS: {number: torch.tensor(float(count)) for number, count in enumerate(counts)}}

    @abstractmethod
    def _restore(self, slots: Mapping[str, list[Tensor]]) -> None: ...

    def _decayed(self, gradients: Tensors) -> Tensors:
        """Gradients plus those of the L2 penalty, as the rule computes with them."""
        if not self._weight_decay:
            return _as_real(gradients) if self._viewed else gradients
        if not self._viewed:
            return torch._foreach_add(gradients, self._parameters, alpha=self._weight_decay)
        pairs = zip(self._parameters, gradients, strict=True)
        parameters = [torch.view_as_complex(weight) if gradient.is_complex() else weight for weight, gradient in pairs]
        return _as_real(torch._foreach_add(gradients, parameters, alpha=self._weight_decay))


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
        # torch begins with the first gradient instead of zeros: equal after the first step
        self._velocity = [torch.zeros_like(parameter) for parameter in self._parameters] if momentum else []

    def factors(self, learning_rate: float, steps: int) -> tuple[float, ...]:
        return (-learning_rate,)

    def apply(self, gradients: Tensors, factors: Sequence[Factor]) -> None:
        direction = self._decayed(gradients)
        if self._momentum:
            direction = self._accelerate(direction)
        _move(self._parameters, direction, factors[0])

    def _accelerate(self, direction: Tensors) -> Tensors:
        torch._foreach_mul_(self._velocity, self._momentum)
        torch._foreach_add_(self._velocity, direction)
        if not self._nesterov:
            return self._velocity
        return torch._foreach_add(direction, self._velocity, alpha=self._momentum)

    def state_dict(self) -> RuleState:
        return {"momentum_buffer": dict(enumerate(self._velocity))} if self._velocity else {}

    def _restore(self, slots: Mapping[str, list[Tensor]]) -> None:
        self._velocity = slots.get("momentum_buffer", [])


class Adam(InPlaceRule):
    """:class:`torch.optim.Adam`, or AdamW with `decoupled` weight decay; betas 0.9 and 0.999, eps 1e-8."""

    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
    factors_change = True
    complex_as_real = True

    def __init__(
        self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float, decoupled: bool
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self._decoupled = decoupled
        self._mean = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]

    def factors(self, learning_rate: float, steps: int) -> tuple[float, ...]:
        """Size of the step, bias correction of the spread, and the factor of decoupled weight decay."""
        size = -learning_rate / (1 - self.BETA1 ** (steps + 1))
        return size, (1 - self.BETA2 ** (steps + 1)) ** 0.5, 1 - learning_rate * self._weight_decay

    def apply(self, gradients: Tensors, factors: Sequence[Factor]) -> None:
        size, correction, decay = factors
        if self._weight_decay and self._decoupled:
            torch._foreach_mul_(self._parameters, decay)
            direction = _as_real(gradients) if self._viewed else gradients
        else:
            direction = self._decayed(gradients)
        torch._foreach_lerp_(self._mean, direction, 1 - self.BETA1)
        torch._foreach_mul_(self._square, self.BETA2)
        torch._foreach_addcmul_(self._square, direction, direction, 1 - self.BETA2)
        spread = torch._foreach_sqrt(self._square)
        torch._foreach_div_(spread, correction)
        torch._foreach_add_(spread, self.EPS)
        if isinstance(size, Tensor):
            _move(self._parameters, torch._foreach_div(self._mean, spread), size)
        else:
            torch._foreach_addcdiv_(self._parameters, self._mean, spread, size)

    def state_dict(self) -> RuleState:
        state = {"exp_avg": dict(enumerate(self._mean)), "exp_avg_sq": dict(enumerate(self._square))}
        return {**state, **self._step_counts()}

    def _restore(self, slots: Mapping[str, list[Tensor]]) -> None:
        self._mean, self._square = slots.get("exp_avg", []), slots.get("exp_avg_sq", [])


class RMSprop(InPlaceRule):
    """:class:`torch.optim.RMSprop`, not centered; alpha 0.99, eps 1e-8."""

    ALPHA, EPS = 0.99, 1e-8
    complex_as_real = True

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
        direction = self._decayed(gradients)
        torch._foreach_mul_(self._square, self.ALPHA)
        torch._foreach_addcmul_(self._square, direction, direction, 1 - self.ALPHA)
        spread = torch._foreach_sqrt(self._square)
        torch._foreach_add_(spread, self.EPS)
        if self._momentum:
            torch._foreach_mul_(self._velocity, self._momentum)
            torch._foreach_addcdiv_(self._velocity, direction, spread, 1.0)
            _move(self._parameters, self._velocity, size)
        elif isinstance(size, Tensor):
            _move(self._parameters, torch._foreach_div(direction, spread), size)
        else:
            torch._foreach_addcdiv_(self._parameters, direction, spread, size)

    def state_dict(self) -> RuleState:
        state = {"square_avg": dict(enumerate(self._square))}
        return state | ({"momentum_buffer": dict(enumerate(self._velocity))} if self._momentum else {})

    def _restore(self, slots: Mapping[str, list[Tensor]]) -> None:
        self._square, self._velocity = slots.get("square_avg", []), slots.get("momentum_buffer", [])


def _move(parameters: list[Tensor], direction: Tensors, size: Factor) -> None:
    """`parameters += size * direction`, rounded once if `size` is on the host and twice if it is a tensor."""
    if isinstance(size, Tensor):
        torch._foreach_add_(parameters, torch._foreach_mul(direction, size))
    else:
        torch._foreach_add_(parameters, direction, alpha=size)


def _as_real(tensors: Tensors) -> list[Tensor]:
    """Views of complex tensors as real ones, (…, 2); other tensors as they are."""
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]


def _in_order(tensors: Mapping[int, Tensor]) -> list[Tensor]:
    return [tensors[number] for number in sorted(tensors)]
