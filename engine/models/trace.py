"""One forward pass over the meta device: each layer's output, and what autograd keeps for the backward pass.

No weight is changed, no random number drawn, no memory taken. Models that look at the contents of a tensor cannot run
there; they run once on the few rows they are given, on copies of their buffers, and the generators are put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from epochtop.engine.models.layers import Recomputed
from epochtop.engine.protocol.requests import LayerFact, ModelSummary

MAP = Callable[[Tensor], Tensor]


def measure(model: nn.Module, example: Any) -> ModelSummary:
    """The summary of `model` for the batch `example`: a tensor, or tuples, lists and dicts of tensors.

    Raises what the model raises for such a batch.
    """
    with torch.random.fork_rng(devices=_devices_of(model)):
        try:
            return _measured(model, example, _to_meta)
        except Exception:
            if all(value.is_meta for value in tensors_of(example)):
                raise
        return _measured(model, example, torch.Tensor.detach)


def measured_rows(example: Any) -> int:
    """Rows of a batch: the length of its first tensor."""
    return next((len(value) for value in tensors_of(example) if value.ndim), 1)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in a tensor, tuple, list or dict."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_of(part)


def mapped(value: Any, change: MAP) -> Any:
    """The same structure with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(part, change) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(mapped(part, change) for part in value)
    return value


def _to_meta(value: Tensor) -> Tensor:
    return torch.empty_like(value, device="meta", requires_grad=value.requires_grad)


def _devices_of(model: nn.Module) -> list[int]:
    return sorted({weight.device.index or 0 for weight in model.parameters() if weight.is_cuda})


def _measured(model: nn.Module, example: Any, change: MAP) -> ModelSummary:
    """`change` is applied to parameters, buffers and example."""
    batch = mapped(example, change)
    watch = _Watch(model)
    with _all_kept(model), _replaced(model, change) as own, watch, torch.enable_grad(), _FusedAttention():
        given = model(batch)
        kept = watch.kept_bytes(own, [*tensors_of(batch)], [*tensors_of(given)])
    return ModelSummary(
        rows=measured_rows(batch),
        layers=tuple(_layers(model, watch.outputs)),
        parameters=sum(weight.numel() for weight in model.parameters()),
        trained=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        activation_bytes=kept,
    )


def _layers(model: nn.Module, outputs: dict[str, Tensor | None]) -> Iterator[LayerFact]:
    """Modules that hold no other, and those with parameters of their own; a shared one is counted once."""
    counted: set[Tensor] = set()
    for name, module in model.named_modules():
        own = [weight for weight in module.parameters(recurse=False) if weight not in counted]
        if own or (not any(True for _ in module.children()) and not isinstance(module, nn.Sequential)):
            counted |= set(own)
            output = outputs.get(name)
            yield LayerFact(
                name=name or "model",
                kind=type(module).__name__,
                output=None if output is None else tuple(output.shape),
                parameters=sum(weight.numel() for weight in own),
                output_bytes=None if output is None else output.nbytes,
            )


@contextmanager
def _replaced(model: nn.Module, change: MAP) -> Iterator[set[int]]:
    """Stand-ins for all weights and copies for all buffers; gives their storages.

    Not by torch.func.functional_call: in torch 2.13 it leaves its stand-ins in a module that has two names.
    """
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    made: dict[int, Tensor] = {}
    try:
        for module in model.modules():
            holders: tuple[tuple[dict[str, Any], MAP], ...] = (
                (module._parameters, change),
                (module._buffers, lambda kept: change(kept).clone()),
            )
            for holder, change_it in holders:
                before.append((holder, dict(holder)))
                for name, value in holder.items():
                    if value is not None:
                        if id(value) not in made:
                            made[id(value)] = change_it(value).requires_grad_(value.requires_grad)
                        holder[name] = made[id(value)]
        yield {value.untyped_storage()._cdata for value in made.values()}
    finally:
        for holder, values in before:
            holder.update(values)


@contextmanager
def _all_kept(model: nn.Module) -> Iterator[None]:
    """In training mode, and nothing is recomputed: what would be is counted by :class:`_Watch`."""
    modes = [(module, module.training) for module in model.modules()]
    switches = [(module, module.active) for module in model.modules() if isinstance(module, Recomputed)]
    model.train()
    for module, _ in switches:
        module.active = False
    try:
        yield
    finally:
        for changed, training in modes:
            changed.training = training
        for module, active in switches:
            module.active = active


class _FusedAttention(TorchFunctionMode):
    """Attention keeps no square of the context, as the fused kernels of CPU and GPU do; meta tensors have none."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention and len(args) == 3 and args[0].is_meta:
            plain = not kwargs.get("dropout_p") and kwargs.get("attn_mask") is None and not kwargs.get("enable_gqa")
            if plain and args[0].ndim == 4:
                fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
                return fused(*args, 0.0, kwargs.get("is_causal", False))[0]
        return function(*args, **kwargs)


class _Watch:
    """While it is entered: outputs of all layers by name, and the storages that autograd keeps, part by part."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        recomputed = [module for module in model.modules() if isinstance(module, Recomputed) and module.active]
        self._parts = [part for module in recomputed for part in module.parts()[:-1]]
        self.outputs: dict[str, Tensor | None] = {}
        self._kept: dict[int | None, dict[int, torch.UntypedStorage]] = {None: {}}
        """By part of what is recomputed; None is what is kept in any case."""
        self._part: int | None = None

    def __enter__(self) -> None:
        self._stack = ExitStack()
        for name, module in self._model.named_modules():
            self._hold(module.register_forward_hook(self._note(name)))
        for number, layers in enumerate(self._parts):
            self._kept[number] = {}
            self._hold(layers[0].register_forward_pre_hook(self._enter(number)))
            self._hold(layers[-1].register_forward_hook(self._leave()))
        self._stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _hold(self, handle: RemovableHandle) -> None:
        self._stack.callback(handle.remove)

    def _pack(self, kept: Tensor) -> Tensor:
        self._keep(kept, self._part)
        return kept

    def _keep(self, kept: Tensor, part: int | None) -> None:
        storage = kept.untyped_storage()
        self._kept[part][storage._cdata] = storage

    def _note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.outputs.setdefault(name, next(tensors_of(output), None))

        return note

    def _enter(self, number: int) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, inputs: Any) -> None:
            for value in tensors_of(inputs):
                self._keep(value, None)
            self._part = number

        return enter

    def _leave(self) -> Callable[[nn.Module, Any, Any], None]:
        def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            self._part = None

        return leave

    def kept_bytes(self, own: set[int], batch: list[Tensor], outputs: list[Tensor]) -> int:
        """Of all kept storages but the model's `own`, of the batch, and of the loss: as much again as twice the output."""
        for value in batch:
            self._keep(value, None)
        always = {key: storage.nbytes() for key, storage in self._kept.pop(None).items() if key not in own}
        again = [
            sum(storage.nbytes() for key, storage in part.items() if key not in own and key not in always)
            for part in self._kept.values()
        ]
        return sum(always.values()) + max(again, default=0) + 2 * sum(value.nbytes for value in outputs)
