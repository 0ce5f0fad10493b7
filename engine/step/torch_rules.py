"""Optimizers of torch as update rules, and the choice among all rules.

Nothing here may read a value back from the device: variants that torch cannot compute without a read are not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.step.update_rules import SGD, STEP_COUNTS, Adam, RMSprop, RuleState, Tensors, UpdateRule

COUNTED = ("exp_avg", "exp_avg_sq", "sum")
"""State of the optimizers of torch that also count steps: Adam, AdamW and Adagrad."""


def in_layout_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of its parameter, which fused kernels require; a copy only where they differ.

    `backward()` takes care of this where it stores a gradient, `autograd.grad` does not. Reads shapes and strides only.
    """
    if gradient.stride() == parameter.stride() or gradient.layout is not torch.strided:
        return gradient
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)


class TorchRule(UpdateRule):
    """One or more optimizers of torch, each for some of the parameters."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._parameters, self._optimizers = list(parameters), list(optimizers)
        self._owners = {
            id(parameter): optimizer
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

        self._learning_rate = float(optimizers[0].param_groups[0]["lr"])
        self._rate_tensor: Tensor | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate of all optimizers."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = value
        if self._rate_tensor is not None:
            self._rate_tensor.fill_(value)
            return
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = value

    @property
    def can_be_captured(self) -> bool:
        """Whether a CUDA graph can capture the steps."""
        return all(
            "capturable" in optimizer.defaults or optimizer.defaults.get("fused") for optimizer in self._optimizers
        )

    def create_state(self) -> None:
        """Create the state that torch creates with the first step, filled with zeros. This may change the parameters."""
        for optimizer in self._optimizers:
            if all(optimizer.state.values()) and optimizer.state:
                continue
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            for state in optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        value.zero_()

    def keep_rate_in(self, tensor: Tensor) -> None:
        """Read the learning rate from this tensor (0-d, on the device) from now on, so that steps can be captured."""
        self._rate_tensor = tensor.fill_(self._learning_rate)
        for optimizer in self._optimizers:
            optimizer._warned_capturable_if_run_uncaptured = True  # some steps are taken without a graph
            for group in optimizer.param_groups:
                group["lr"] = tensor
                if "capturable" in group:
                    group["capturable"] = True

    def __call__(self, gradients: Tensors) -> None:
        self.skipping(gradients)

    def skipping(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient if gradient is None else in_layout_of(parameter, gradient)
        self._step()

    def _step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()

    def state_dict(self) -> RuleState:
        state: dict[str, dict[int, Tensor]] = {}
        for number, parameter in enumerate(self._parameters):
            for name, value in self._owners[id(parameter)].state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    state.setdefault(name, {})[number] = value
        return state

    def load_state_dict(self, state: RuleState, steps: int) -> None:
        for name, tensors in {**state, STEP_COUNTS: self._step_counts(state, steps)}.items():
            for number, tensor in tensors.items():
                parameter = self._parameters[number]
                owner = self._owners[id(parameter)]
                # torch keeps the step count on the host, except for fused optimizers
                host = name == STEP_COUNTS and not owner.defaults.get("fused")
                owner.state[parameter][name] = tensor.cpu() if host else tensor.to(parameter.device)

    def _step_counts(self, state: RuleState, steps: int) -> Mapping[int, Tensor]:
        """The step count of every parameter that has a state; the rules of :mod:`update_rules` count for all of them."""
        counts = state.get(STEP_COUNTS, {})
        counting = {number for name, tensors in state.items() if name in COUNTED for number in tensors}
        return {**{number: torch.tensor(float(steps)) for number in counting}, **counts}


class LossScaledRule(TorchRule):
    """A fused optimizer with a loss scale: if a gradient overflows, the step is skipped on the device.

    Only fused optimizers can skip without a read (:class:`torch.amp.GradScaler` reads for others). Gradients must be those
    of the loss times the scale, see :meth:`scale`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
        super().__init__(parameters, [optimizer])
        self._clip_norm = clip_norm
        self._scaler = torch.amp.GradScaler(self._parameters[0].device.type)
        self._scaler.scale(torch.zeros((), device=self._parameters[0].device))  # creates the tensor of the scale

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return self._scaler.scale(loss)

    def skipping(self, gradients: Sequence[Tensor | None]) -> None:
        super().skipping(gradients)
        self._scaler.update()

    def _step(self) -> None:
        optimizer = self._optimizers[0]
        if self._clip_norm:
            self._scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._scaler.step(optimizer)

    def state_dict(self) -> RuleState:
        scale, growth = self._scaler._scale, self._scaler._growth_tracker
        assert scale is not None
        assert growth is not None
        return {**super().state_dict(), "scale": {0: scale}, "growth_tracker": {0: growth}}

    def load_state_dict(self, state: RuleState, steps: int) -> None:
        rest = dict(state)
        scale, growth = rest.pop("scale")[0], rest.pop("growth_tracker")[0]
        assert self._scaler._scale is not None
        assert self._scaler._growth_tracker is not None
        self._scaler._scale.copy_(scale)
        self._scaler._growth_tracker.copy_(growth)
        super().load_state_dict(rest, steps)


class Muon(UpdateRule):
    """:class:`torch.optim.Muon` for matrices and AdamW for all other parameters.

    Muon's steps are scaled to the size of AdamW's, so that both use one learning rate.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        rule: Callable[[Sequence[nn.Parameter]], UpdateRule] | None = None,
    ) -> None:
        """`rule` makes the rule for the matrices, in place of torch's."""
        self._numbers = [
            [number for number, parameter in enumerate(parameters) if parameter.ndim == 2],
            [number for number, parameter in enumerate(parameters) if parameter.ndim != 2],
        ]
        matrices, others = ([parameters[number] for number in numbers] for numbers in self._numbers)
        self._parts: list[UpdateRule] = [Adam(others, learning_rate, weight_decay, decoupled=True)]
        if matrices:
            self._parts.insert(0, rule(matrices) if rule else _muon(matrices, learning_rate, weight_decay))
        else:
            self._numbers = self._numbers[1:]

    @property
    def learning_rate(self) -> float:
        """The learning rate of both."""
        return self._parts[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for part in self._parts:
            part.learning_rate = value

    def __call__(self, gradients: Tensors) -> None:
        for part, numbers in zip(self._parts, self._numbers, strict=True):
            if numbers:
                part([gradients[number] for number in numbers])

    def skipping(self, gradients: Sequence[Tensor | None]) -> None:
        for part, numbers in zip(self._parts, self._numbers, strict=True):
            if numbers:
                part.skipping([gradients[number] for number in numbers])

    def state_dict(self) -> RuleState:
        state: dict[str, dict[int, Tensor]] = {}
        for part, numbers in zip(self._parts, self._numbers, strict=True):
            for name, tensors in part.state_dict().items():
                state.setdefault(name, {}).update({numbers[place]: tensor for place, tensor in tensors.items()})
        return state

    def load_state_dict(self, state: RuleState, steps: int) -> None:
        for part, numbers in zip(self._parts, self._numbers, strict=True):
            slots = {
                name: {numbers.index(number): tensor for number, tensor in tensors.items() if number in numbers}
                for name, tensors in state.items()
            }
            part.load_state_dict({name: tensors for name, tensors in slots.items() if tensors}, steps)


def _muon(matrices: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> UpdateRule:
    muon = torch.optim.Muon(matrices, learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return TorchRule(matrices, [muon])


# --- from a spec -------------------------------------------------------------------------------------------

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def torch_optimizer(spec: RunSpec, fused: bool | None) -> Make:
    """A function from parameters to the optimizer of torch that `spec` names. If `fused` is None, torch chooses."""
    rate, decay = spec.learning_rate, spec.weight_decay
    optim = torch.optim
    makers: dict[str, Make] = {
        "sgd": lambda parameters: optim.SGD(
            parameters, rate, spec.momentum, weight_decay=decay, nesterov=spec.nesterov, fused=fused
        ),
        "adam": lambda parameters: optim.Adam(parameters, rate, weight_decay=decay, fused=fused),
        "adamw": lambda parameters: optim.AdamW(parameters, rate, weight_decay=decay, fused=fused),
        "adagrad": lambda parameters: _adagrad(list(parameters), rate, decay),
    }
    return makers[spec.optimizer]


def _adagrad(parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    # the unfused one reads its step count, which is on the host but costs as much
    fused = not any(parameter.is_complex() for parameter in parameters)
    fused = fused and has_fused("Adagrad", parameters[0].device.type)
    return torch.optim.Adagrad(parameters, learning_rate, weight_decay=weight_decay, fused=fused)


@cache
def has_fused(name: str, device_type: str) -> bool:
    """Whether the optimizer of torch with this name has a fused variant on this type of device, by trying one step.

    Versions of torch differ: Adagrad has none on CUDA before 2.12.
    """
    parameter = nn.Parameter(torch.zeros(1, device=device_type))
    parameter.grad = torch.zeros_like(parameter)
    try:
        getattr(torch.optim, name)([parameter], lr=0.1, fused=True).step()
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


@cache
def can_scale_loss(name: str, device_type: str) -> bool:
    """Whether the fused optimizer takes steps with a loss scale on this type of device, by trying one.

    Apple's GPUs have fused optimizers, but no loss scale before torch 2.8.
    """
    parameter = nn.Parameter(torch.zeros(1, device=device_type))
    parameter.grad = torch.zeros_like(parameter)
    try:
        scaler = torch.amp.GradScaler(device_type)
        scaler.scale(torch.zeros((), device=device_type))
        scaler.step(getattr(torch.optim, name)([parameter], lr=0.1, fused=True))
        scaler.update()
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


FUSED_NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adagrad": "Adagrad"}


def make_update_rule(spec: RunSpec, parameters: Sequence[nn.Parameter]) -> UpdateRule:
    """The update rule of `spec`. Raises Invalid if torch lacks what it needs."""
    cuda = parameters[0].device.type == "cuda"
    fusible = not any(
        parameter.is_complex() for parameter in parameters
    )  # torch has no fused kernels for complex numbers
    if spec.precision == "fp16":
        if not can_scale_loss(FUSED_NAMES[spec.optimizer], parameters[0].device.type):
            raise Invalid(
                "precision",
                f"fp16 needs a fused {spec.optimizer} with a loss scale, which torch {torch.__version__} does not have on "
                f"{parameters[0].device.type}; use bf16 or another optimizer",
            )
        return LossScaledRule(parameters, torch_optimizer(spec, fused=True)(parameters), spec.clip_norm)
    if spec.optimizer == "sgd":
        return SGD(parameters, spec.learning_rate, spec.weight_decay, spec.momentum, spec.nesterov)
    if spec.optimizer in ("adam", "adamw") and (not cuda or spec.executor == "compile" or not fusible):
        return Adam(parameters, spec.learning_rate, spec.weight_decay, decoupled=spec.optimizer == "adamw")
    if spec.optimizer == "rmsprop":
        return RMSprop(parameters, spec.learning_rate, spec.weight_decay, spec.momentum)
    if spec.optimizer == "muon":
        if not fusible:
            raise Invalid("optimizer", "muon does not support complex weights, which this model has; use adamw")
        return Muon(parameters, spec.learning_rate, spec.weight_decay)
    return TorchRule(parameters, [torch_optimizer(spec, fused=cuda and fusible)(parameters)])
