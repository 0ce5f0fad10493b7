"""Traces one forward pass on the meta device: the output of each layer, and what autograd saves for the backward pass.

Changes no weights, draws no random numbers, needs no memory. A model that looks at the contents of tensors cannot run on
the meta device; it runs once on the example rows instead, with copies of its buffers, and random generators are restored.
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

from epochtop.engine.device import generators
from epochtop.engine.models.attributes import restored_attributes
from epochtop.engine.models.layers import Recomputed
from epochtop.engine.models.nested import mapped, tensors_of
from epochtop.engine.protocol.requests import LayerFact, ModelSummary

HOST = torch.device("cpu")
Change = Callable[[Tensor], Tensor]


def measure(model: nn.Module, example: Any, rows: int) -> ModelSummary:
    """The summary of `model` for the batch `example` of `rows`: a tensor, or tensors in any nested structure.

    Raises any error that the model raises for the batch.
    """
    with (
        torch.random.fork_rng(devices=_devices_of(model)),
        generators.forked(HOST),
        restored_attributes(*model.modules()),
    ):
        try:
            return _traced(model, example, rows, _to_meta)
        except Exception:
            if all(value.is_meta for value in tensors_of(example)):
                raise
        return _traced(model, example, rows, torch.Tensor.detach)


def _to_meta(value: Tensor) -> Tensor:
    return torch.empty_like(value, device="meta", requires_grad=value.requires_grad)


def _devices_of(model: nn.Module) -> list[int]:
    return sorted({weight.device.index or 0 for weight in model.parameters() if weight.is_cuda})


def _traced(model: nn.Module, example: Any, rows: int, change: Change) -> ModelSummary:
    """The summary, with `change` applied to parameters, buffers and the example."""
    batch = mapped(example, change)
    recorder = _SavedTensors(model)
    with _all_saved(model), _replaced(model, change) as own_storages, recorder, torch.enable_grad(), _FusedAttention():
        output = model(batch)
        saved = recorder.saved_bytes(own_storages, [*tensors_of(batch)], [*tensors_of(output)])
    return ModelSummary(
        rows=rows,
        layers=tuple(_layers(model, recorder.outputs)),
        parameters=sum(weight.numel() for weight in model.parameters()),
        trained=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        activation_bytes=saved,
    )


def _layers(model: nn.Module, outputs: dict[str, Tensor | None]) -> Iterator[LayerFact]:
    """Modules without submodules, and modules with parameters of their own; shared parameters are counted once."""
    counted: set[Tensor] = set()
    for name, module in model.named_modules():
        weights = [weight for weight in module.parameters(recurse=False) if weight not in counted]
        if weights or (not any(True for _ in module.children()) and not isinstance(module, nn.Sequential)):
            counted |= set(weights)
            output = outputs.get(name)
            yield LayerFact(
                name=name or "model",
                kind=type(module).__name__,
                output=None if output is None else tuple(output.shape),
                parameters=sum(weight.numel() for weight in weights),
                output_bytes=None if output is None else output.nbytes,
            )


@contextmanager
def _replaced(model: nn.Module, change: Change) -> Iterator[set[int]]:
    """Replace all weights and buffers while the context is active; yields the storages of the replacements.

    Not with torch.func.functional_call: in torch 2.13 it leaves its replacements in a module that has two names.
    """
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    replacements: dict[int, Tensor] = {}
    try:
        for module in model.modules():
            holders: tuple[tuple[dict[str, Any], Change], ...] = (
                (module._parameters, change),
                (module._buffers, lambda buffer: change(buffer).clone()),
            )
            for holder, replace in holders:
                before.append((holder, dict(holder)))
                for name, value in holder.items():
                    if value is not None:
                        if id(value) not in replacements:
                            replacements[id(value)] = replace(value).requires_grad_(value.requires_grad)
                        holder[name] = replacements[id(value)]
        yield {value.untyped_storage()._cdata for value in replacements.values()}
    finally:
        for holder, values in before:
            for name, value in values.items():  # scripted modules have no update
                holder[name] = value


@contextmanager
def _all_saved(model: nn.Module) -> Iterator[None]:
    """Training mode without recomputation; :class:`_SavedTensors` accounts for segments that would be recomputed."""
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
    """Traces attention with a fused kernel, which saves no context × context matrix; the meta device has no such kernel."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention and len(args) == 3 and args[0].is_meta:
            plain = not kwargs.get("dropout_p") and kwargs.get("attn_mask") is None and not kwargs.get("enable_gqa")
            if plain and args[0].ndim == 4:
                fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
                return fused(*args, 0.0, kwargs.get("is_causal", False))[0]
        return function(*args, **kwargs)


class _SavedTensors:
    """Records, while active, the outputs of all layers by name, and the storages that autograd saves, by segment."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        recomputed = [module for module in model.modules() if isinstance(module, Recomputed) and module.active]
        self._segments = [segment for module in recomputed for segment in module.segments()[:-1]]
        self.outputs: dict[str, Tensor | None] = {}
        self._saved: dict[int | None, dict[int, torch.UntypedStorage]] = {None: {}}
        """Storages by segment; None holds those that are saved even with recomputation."""
        self._segment: int | None = None

    def __enter__(self) -> None:
        self._stack = ExitStack()
        for name, module in self._model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # which refuses hooks
                self._remove_on_exit(module.register_forward_hook(self._record_output(name)))
        for number, layers in enumerate(self._segments):
            self._saved[number] = {}
            self._remove_on_exit(layers[0].register_forward_pre_hook(self._enter(number)))
            self._remove_on_exit(layers[-1].register_forward_hook(self._leave()))
        self._stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _remove_on_exit(self, handle: RemovableHandle) -> None:
        self._stack.callback(handle.remove)

    def _pack(self, tensor: Tensor) -> Tensor:
        self._save(tensor, self._segment)
        return tensor

    def _save(self, tensor: Tensor, segment: int | None) -> None:
        storage = tensor.untyped_storage()
        self._saved[segment][storage._cdata] = storage

    def _record_output(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.outputs.setdefault(name, next(tensors_of(output), None))

        return record

    def _enter(self, number: int) -> Callable[[nn.Module, Any], None]:
        def enter(_module: nn.Module, inputs: Any) -> None:
            for value in tensors_of(inputs):
                self._save(value, None)
            self._segment = number

        return enter

    def _leave(self) -> Callable[[nn.Module, Any, Any], None]:
        def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            self._segment = None

        return leave

    def saved_bytes(self, own_storages: set[int], batch: list[Tensor], outputs: list[Tensor]) -> int:
        """Bytes of the saved storages without the model's own, of the batch, and of the loss (twice the output)."""
        for value in batch:
            self._save(value, None)
        always = {key: storage.nbytes() for key, storage in self._saved.pop(None).items() if key not in own_storages}
        recomputed = [
            sum(storage.nbytes() for key, storage in segment.items() if key not in own_storages and key not in always)
            for segment in self._saved.values()
        ]
        return sum(always.values()) + max(recomputed, default=0) + 2 * sum(value.nbytes for value in outputs)
