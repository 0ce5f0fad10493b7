"""Tensors whose work is done later. They say that they are on `cuda:0`, and their values are on the host, out of reach.

An operator is enqueued on the current stream: its result is poison until it is executed. Views, shapes and types are known
at once, as on a GPU. Reading a value waits for the device and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.support.simulated_device.memory import Block, PinnedMemory, poison
from tests.support.simulated_device.queues import Device

CUDA = torch.device("cuda", 0)
READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")
"""Operators that need values on the host."""


class SimulatedTensor(Tensor):
    """A tensor on the simulated device."""

    simulated: ClassVar[Device]
    pinned: ClassVar[PinnedMemory]
    held: Tensor
    block: Block

    @staticmethod
    def __new__(cls, real: Tensor, block: Block | None = None, requires_grad: bool = False) -> Any:
        tensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            requires_grad=requires_grad,
        )
        tensor.held, tensor.block = real, block or Block(cls.simulated, real)
        return tensor

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    def record_stream(self, stream: Any) -> None:
        """Let the memory wait for this stream before it is used again."""
        self.block.users.append(stream.queue)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"SimulatedTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(operator, args, kwargs or {})


def on_device(real: Tensor, requires_grad: bool = False) -> SimulatedTensor:
    """A tensor with these values, complete."""
    return SimulatedTensor(real.detach().clone(), None, requires_grad)  # type: ignore[no-any-return]


def values_of(tensor: Any) -> Any:
    return tensor.held if isinstance(tensor, SimulatedTensor) else tensor


def dispatched(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Execute an operator as a GPU would."""
    device, name = SimulatedTensor.simulated, operator._schema.name.removeprefix("aten::")
    real_args, real_kwargs = tree_map(values_of, args), tree_map(values_of, kwargs)
    if name in READS:
        device.read()
        return wrapped(operator(*real_args, **real_kwargs))
    returns = [value.alias_info for value in operator._schema.returns]
    if name == "copy_" and not (isinstance(args[0], SimulatedTensor) and isinstance(args[1], SimulatedTensor)):
        return copied(args[0], args[1], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if name == "_to_copy" and str(kwargs.get("device", "cuda")) == "cpu":
        device.read()
        return operator(*real_args, **real_kwargs)
    if any(alias is not None and not alias.is_write for alias in returns):  # a view
        block = next(one for one in tree_leaves((args, kwargs)) if isinstance(one, SimulatedTensor)).block
        return tree_map(
            lambda view: SimulatedTensor(view, block) if isinstance(view, Tensor) else view,
            operator(*real_args, **real_kwargs),
        )
    taken = tree_map(snapshot, (args, kwargs))
    if any(argument.alias_info is not None and argument.alias_info.is_write for argument in operator._schema.arguments):
        device.launch(lambda: operator(*taken[0], **taken[1]))
        if not operator._schema.returns:
            return None
        return kwargs["out"] if "out" in kwargs else args[0]
    return computed(operator, taken)


def snapshot(value: Any) -> Any:
    """An operand: what is on the device is read when the kernel runs, numbers of the host when it is launched."""
    if isinstance(value, SimulatedTensor):
        return value.held
    return value.clone() if isinstance(value, Tensor) else value


def computed(operator: Any, taken: Any) -> Any:
    """New tensors, which an enqueued kernel will fill."""
    args, kwargs = tree_map(lambda value: value.to("meta") if isinstance(value, Tensor) else value, taken)
    if kwargs.get("device") is not None:
        kwargs["device"], taken[1]["device"] = torch.device("meta"), torch.device("cpu")
    for name in ("pin_memory",):
        taken[1].pop(name, None)
    shapes = operator(*args, **kwargs)
    results = tree_map(
        lambda shape: (
            poison(torch.empty_strided(shape.size(), shape.stride(), dtype=shape.dtype))
            if isinstance(shape, Tensor)
            else shape
        ),
        shapes,
    )

    def work() -> None:
        values = operator(*taken[0], **taken[1])
        for result, value in zip(tree_leaves(results), tree_leaves(values), strict=True):
            if isinstance(result, Tensor):
                result.copy_(value)

    SimulatedTensor.simulated.launch(work)
    return wrapped(results)


def wrapped(values: Any) -> Any:
    return tree_map(lambda value: SimulatedTensor(value) if isinstance(value, Tensor) else value, values)


def copied(target: Any, source: Any, non_blocking: bool) -> Any:
    """Copy between host and device. From and to ordinary memory, CUDA waits for the stream."""
    device = SimulatedTensor.simulated
    host = source if isinstance(target, SimulatedTensor) else target
    to, origin = values_of(target), values_of(source)
    if not (non_blocking and SimulatedTensor.pinned.holds(host)) and host.numel() > 1:
        device.read()
        to.copy_(origin)
        return target
    if host.numel() <= 1 and host is source:  # a number becomes an argument of the kernel
        origin = origin.clone()
    if host is target:
        poison(to)
    device.launch(lambda: to.copy_(origin))
    return target


class Api(TorchFunctionMode):
    """The calls of torch that name the device, or memory for it."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        handler: Callable[..., Any] | None = HANDLERS.get(name)
        if handler is not None and args and isinstance(args[0], Tensor):
            result = handler(args[0], *args[1:], **kwargs)
            if result is not NotImplemented:
                return result
        if kwargs.pop("pin_memory", False):
            return SimulatedTensor.pinned.pin(function(*args, **kwargs))
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            return made_there(function, args, kwargs)
        return function(*args, **kwargs)


def made_there(function: Any, args: Any, kwargs: dict[str, Any]) -> SimulatedTensor:
    """What a factory such as `torch.zeros` makes, on the device."""
    kwargs["device"] = "cpu"
    if any(isinstance(value, SimulatedTensor) for value in args):
        del kwargs["device"]
        return function(*args, **kwargs)  # type: ignore[no-any-return]
    real: Tensor = function(*args, **kwargs)
    values = real.detach().clone()
    there = SimulatedTensor(poison(real.detach()), None, real.requires_grad)
    SimulatedTensor.simulated.launch(lambda: there_copy(real, values))
    return there  # type: ignore[no-any-return]


def there_copy(real: Tensor, values: Tensor) -> None:
    real.detach().copy_(values)


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    place = kwargs.get("device", args[0] if args else None)
    if isinstance(place, Tensor | torch.dtype) or place is None:
        return NotImplemented
    to_gpu = torch.device(place).type == "cuda"
    if to_gpu and isinstance(tensor, SimulatedTensor):
        return tensor
    if to_gpu:
        there = SimulatedTensor(poison(torch.empty_like(tensor)))
        copied(there, tensor, kwargs.get("non_blocking", False))
        return there
    return _host(tensor) if isinstance(tensor, SimulatedTensor) else NotImplemented


def _host(tensor: Tensor) -> Any:
    if not isinstance(tensor, SimulatedTensor):
        return NotImplemented
    device = SimulatedTensor.simulated
    device.read()
    return tensor.held.detach().clone()


def _pin(tensor: Tensor) -> Tensor:
    return SimulatedTensor.pinned.pin(tensor.clone())


HANDLERS: dict[str, Callable[..., Any]] = {
    "to": _to,
    "cpu": _host,
    "pin_memory": _pin,
    "is_pinned": lambda tensor: SimulatedTensor.pinned.holds(tensor),
    "empty_like": lambda tensor, **kwargs: (
        torch.empty_like(values_of(tensor)) if str(kwargs.get("device", "")) == "cpu" else NotImplemented
    ),
}
