"""torch's errors about shapes, types and devices, explained in terms of the model and its rows."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.models.nested import tensors_of


@dataclass(frozen=True)
class FailedLayer:
    """The innermost layer in which a forward pass failed, and its input."""

    name: str
    """Path in the model, such as `blocks.0.conv1`."""
    layer: nn.Module
    input: Tensor | None
    """First tensor among its inputs."""
    is_first: bool
    """Whether no layer with weights came before it, so that its input has the shape of a row."""


def explain_shapes(error: BaseException, x: Any, model: nn.Module, y: Any = None) -> str | None:
    """The mismatch in one sentence; None if this module cannot explain the error.

    `x` and `y` are the batch; the forward pass of `model` is repeated to find the layer that fails.
    """
    text = " ".join(str(error).split())
    if isinstance(error, TypeError) and (message := _arguments(x, model)):
        return message
    for explanation in (_devices, _types, _sizes, _labels):
        message = explanation(text, x, model, y)
        if message is not None:
            return message
    return None


# --- arguments ---------------------------------------------------------------------------------------------


def _arguments(x: Any, model: nn.Module) -> str | None:
    """Why `forward` cannot be called with one argument."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [each.name for each in parameters if each.default is each.empty and each.kind in kinds]
    if len(required) < 2:
        return None
    names = ", ".join(required)
    how = ", ".join(f"x[{name!r}]" for name in required) if isinstance(x, dict) else "x"
    return f"forward takes {names}, but the model is called with the x of a batch only: write forward(self, x) and {names} = {how}"


# --- devices -----------------------------------------------------------------------------------------------


DEVICES = re.compile(
    r"same device|expected device|is on cpu.*expected.*(gpu|cuda)|Input type \((torch\.)?\w+\.?\w*\) and weight type",
    re.IGNORECASE,
)


def _devices(text: str, x: Any, model: nn.Module, _y: Any) -> str | None:
    mixed = re.search(r"Input type \(torch\.(cuda\.)?\w+\) and weight type \(torch\.(cuda\.)?\w+\)", text)
    if not DEVICES.search(text) or (mixed and mixed[1] == mixed[2]):
        return None
    weights = {weight.device for weight in (*model.parameters(), *model.buffers())}
    rows = {value.device for value in tensors_of(x)}
    if len(weights) == 1 and len(rows) == 1 and weights != rows:
        model_device, input_device = next(iter(weights)), next(iter(rows))
        return (
            f"the input is on {input_device}, the model on {model_device}; move one of them, for example with "
            f"x.to({str(model_device)!r})"
        )
    if len(weights) > 1:
        return (
            f"the model's weights are on several devices ({_listing(weights)}); move the whole model with model.to(device), "
            "and register its other tensors as buffers (register_buffer)"
        )
    return (
        f"a tensor is on another device than the model ({_listing(weights)}); create tensors in forward or the loss "
        "with device=x.device, or register them as buffers (register_buffer)"
    )


def _listing(devices: set[torch.device]) -> str:
    return ", ".join(sorted(map(str, devices)))


# --- types -------------------------------------------------------------------------------------------------


TYPES = re.compile(
    r"must have the same dtype|should be the same|expected scalar type|expected m1 and m2 to have the same dtype"
    r"|to have one of the following scalar types: Long, Int"
)


def _types(text: str, x: Any, model: nn.Module, _y: Any) -> str | None:
    if not TYPES.search(text):
        return None
    failed = failed_layer(model, x)
    x_in = failed.input if failed else None
    if failed is None or x_in is None:
        return None
    subject = "the rows are" if failed.is_first else f"{_layer(failed)} gets"
    if isinstance(failed.layer, nn.Embedding):
        return f"{subject} {_dtype(x_in)}, but an embedding takes whole numbers; convert them with x.long()"
    weight = next(failed.layer.parameters(), None)
    if weight is None or weight.dtype == x_in.dtype:
        return None
    if failed.is_first and x_in.dtype == torch.float32:
        return (
            f"the rows are float32, to which epochtop converts them, and the weights {_dtype(weight)}; use model.float(), "
            f"or x.to({weight.dtype}) in forward"
        )
    call = "x.float()" if weight.dtype == torch.float32 else f"x.to({weight.dtype})"
    return f"{subject} {_dtype(x_in)}, the weights {_dtype(weight)}; convert them with {call}"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


# --- sizes -------------------------------------------------------------------------------------------------


SIZES = re.compile(
    r"shapes cannot be multiplied|size mismatch|to have \d+ channels|input to conv\dd|running_mean should contain"
    r"|Given normalized_shape|index out of range in self|Kernel size can't be greater|must be equal to input_size"
    r"|Output size is too small|expected \dD or \dD input"
)


def _sizes(text: str, x: Any, model: nn.Module, _y: Any) -> str | None:
    if not SIZES.search(text):
        return None
    failed = failed_layer(model, x)
    if failed is None or failed.input is None:
        return None
    for kinds, explanation in SIZE_OF:
        if isinstance(failed.layer, kinds):
            return explanation(failed, failed.input)
    return None


def _layer(failed: FailedLayer) -> str:
    return f"layer {failed.name!r} ({type(failed.layer).__name__})" if failed.name else f"{type(failed.layer).__name__}"


def _features(failed: FailedLayer, x: Tensor) -> str | None:
    expected = int(getattr(failed.layer, "in_features", 0) or getattr(failed.layer, "input_size", 0))
    return _count_mismatch(failed, "features", expected, x.shape[-1] if x.ndim else 1)


def _count_mismatch(failed: FailedLayer, noun: str, expected: int, actual: int) -> str | None:
    if expected == actual:
        return None
    if failed.is_first:
        return f"the model expects {expected} {noun}, but the rows have {actual}"
    return f"{_layer(failed)} expects {expected} {noun}, but gets {actual} from the layers before it"


def _channels(failed: FailedLayer, x: Tensor) -> str | None:
    layer, sides = failed.layer, x.ndim - 2
    expected_sides = int(type(layer).__name__[-2]) if type(layer).__name__[-2:-1].isdigit() else sides
    if sides != expected_sides:
        shape = {1: "(channels, length)", 2: "(channels, height, width)"}.get(expected_sides, "(channels, …)")
        subject = "the rows have" if failed.is_first else f"{_layer(failed)} gets"
        return f"{subject} the shape {tuple(x.shape[1:])}, but a convolution takes {shape}"
    mismatch = _count_mismatch(failed, "channels", int(layer.in_channels), x.shape[1])  # type: ignore[arg-type]
    return mismatch or _too_small(failed, x)


def _too_small(failed: FailedLayer, x: Tensor) -> str:
    size = "×".join(map(str, x.shape[2:]))
    subject = "the images are" if failed.is_first else f"{_layer(failed)} gets images of"
    return f"{subject} {size}, smaller than the layer's window; use larger images or fewer layers that shrink them"


def _norm(failed: FailedLayer, x: Tensor) -> str | None:
    return _count_mismatch(failed, "features", int(failed.layer.num_features), x.shape[1])  # type: ignore[arg-type]


def _layer_norm(failed: FailedLayer, x: Tensor) -> str | None:
    expected = tuple(failed.layer.normalized_shape)  # type: ignore[arg-type]
    actual = tuple(x.shape[-len(expected) :])
    subject = "the model expects rows" if failed.is_first else f"{_layer(failed)} expects an input"
    return f"{subject} whose shape ends in {expected}, but it ends in {actual}"


def _codes(failed: FailedLayer, x: Tensor) -> str | None:
    count = int(failed.layer.num_embeddings)  # type: ignore[arg-type]
    low, high = int(x.min()), int(x.max())
    return f"{_layer(failed)} takes codes from 0 to {count - 1}, but gets {low} to {high}"


SIZE_OF: tuple[tuple[Any, Callable[[FailedLayer, Tensor], str | None]], ...] = (
    ((nn.Linear, nn.RNNBase), _features),
    (nn.modules.conv._ConvNd, _channels),
    (nn.modules.batchnorm._BatchNorm, _norm),
    (nn.LayerNorm, _layer_norm),
    (nn.Embedding, _codes),
    ((nn.MaxPool2d, nn.AvgPool2d, nn.MaxPool1d, nn.AvgPool1d), _too_small),
)


# --- labels ------------------------------------------------------------------------------------------------

LABEL = re.compile(r"Target (-?\d+) is out of bounds")
"""torch's words for a label out of range, with the label."""


def _labels(text: str, _x: Any, _model: nn.Module, y: Any) -> str | None:
    labels = next(tensors_of(y), None)
    if labels is None:
        return None
    if match := LABEL.search(text):
        return f"label {match[1]} is out of range: labels go from 0 to the number of outputs minus 1; add outputs or fix the labels"
    if "expected target dtype to be Long" in text or "expected scalar type Long" in text:
        return f"the labels are {_dtype(labels)}, but cross entropy takes whole numbers; convert them with y.long()"
    if "for target with class probabilities" in text:
        return (
            f"the labels of a batch are {_dtype(labels)} of the shape {tuple(labels.shape)}; use y.argmax(1) for class "
            "numbers, or y.float() for probabilities of classes"
        )
    if "multi-target not supported" in text:
        shape = tuple(labels.shape)
        return f"the labels of a batch have the shape {shape}, but cross entropy takes {shape[:1]}; use y.squeeze(1)"
    if match := re.search(r"Expected input batch_size \((\d+)\) to match target batch_size \((\d+)\)", text):
        return f"the model returns {match[1]} rows for {match[2]} labels; it must not change the first dimension"
    if match := re.search(
        r"Target size \(torch\.Size\((.+?)\)\) must be the same as input size .*Size\((.+?)\)\)", text
    ):
        return f"the output has the shape {match[2]}, but the labels {match[1]}; give both the same shape, for example with output.squeeze(1)"
    return None


# --- the layer that failed ---------------------------------------------------------------------------------


def failed_layer(model: nn.Module, x: Any) -> FailedLayer | None:
    """The innermost layer in which a forward pass of `x` fails; None if it does not fail."""
    entered: list[tuple[str, nn.Module, Tensor | None]] = []
    completed: list[nn.Module] = []
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, inputs: Any, name: str = name) -> None:
            entered.append((name, module, next(tensors_of(inputs), None)))

        def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
            entered.pop()
            completed.append(module)

        if isinstance(module, torch.jit.ScriptModule):  # which refuses hooks
            continue
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.no_grad():
            model(x)
    except Exception:
        if not entered:
            return None
        name, layer, x_in = entered[-1]
        any_weights = any(next(module.parameters(recurse=False), None) is not None for module in completed)
        return FailedLayer(name, layer, x_in, is_first=not any_weights)
    finally:
        for handle in handles:
            handle.remove()
    return None
