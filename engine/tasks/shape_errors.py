"""Errors of torch about shapes, types and devices, said in terms of the model and its rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.models.trace import tensors_of


@dataclass(frozen=True)
class Place:
    """The innermost layer that an error came through, and the first tensor it got."""

    name: str
    layer: nn.Module
    given: Tensor | None
    first: bool
    """No other layer with weights was through before it: what it got is what a row is."""


def explain_shapes(error: BaseException, x: Any, model: nn.Module, y: Any = None) -> str | None:
    """What does not fit, in one sentence, or None where this module does not know.

    `x` and `y` are the batch that was given to `model`; the forward pass is repeated to see which layer it stops in.
    """
    text = " ".join(str(error).split())
    for explanation in (_devices, _types, _sizes, _labels):
        said = explanation(text, x, model, y)
        if said is not None:
            return said
    return None


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
        at, of = next(iter(weights)), next(iter(rows))
        return f"the input is on {of}, the model on {at}; move one to the other, for example with x.to({str(at)!r})"
    if len(weights) > 1:
        return (
            f"the model's weights are on several devices ({_listed(weights)}); move all of it with model.to(device), "
            "and make tensors of its own buffers with register_buffer"
        )
    return (
        f"a tensor is on another device than the model ({_listed(weights)}); make those that forward or the loss "
        "need on the device of their input (device=x.device), or buffers of the model (register_buffer)"
    )


def _listed(devices: set[torch.device]) -> str:
    return ", ".join(sorted(map(str, devices)))


# --- types -------------------------------------------------------------------------------------------------


TYPES = re.compile(
    r"must have the same dtype|should be the same|expected scalar type|expected m1 and m2 to have the same dtype"
    r"|to have one of the following scalar types: Long, Int"
)


def _types(text: str, x: Any, model: nn.Module, _y: Any) -> str | None:
    if not TYPES.search(text):
        return None
    place = stopped_in(model, x)
    given = place.given if place else None
    if place is None or given is None:
        return None
    what = "the rows are" if place.first else f"{_layer(place)} gets"
    if isinstance(place.layer, nn.Embedding):
        return f"{what} {_dtype(given)}, an embedding takes whole numbers; convert them with x.long()"
    weight = next(place.layer.parameters(), None)
    if weight is None or weight.dtype == given.dtype:
        return None
    call = "x.float()" if weight.dtype == torch.float32 else f"x.to({weight.dtype})"
    return f"{what} {_dtype(given)}, the weights {_dtype(weight)}; convert them with {call}"


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
    place = stopped_in(model, x)
    if place is None or place.given is None:
        return None
    for kinds, explanation in SIZE_OF:
        if isinstance(place.layer, kinds):
            return explanation(place, place.given)
    return None


def _layer(place: Place) -> str:
    return f"layer {place.name!r} ({type(place.layer).__name__})" if place.name else f"{type(place.layer).__name__}"


def _features(place: Place, given: Tensor) -> str | None:
    wanted = int(getattr(place.layer, "in_features", 0) or getattr(place.layer, "input_size", 0))
    return _numbers(place, "features", wanted, given.shape[-1] if given.ndim else 1)


def _numbers(place: Place, what: str, wanted: int, found: int) -> str | None:
    if wanted == found:
        return None
    if place.first:
        return f"the model expects {wanted} {what}, the rows have {found}"
    return f"{_layer(place)} expects {wanted} {what}, it gets {found} from the layers before it"


def _channels(place: Place, given: Tensor) -> str | None:
    layer, sides = place.layer, given.ndim - 2
    wanted_sides = int(type(layer).__name__[-2]) if type(layer).__name__[-2:-1].isdigit() else sides
    if sides != wanted_sides:
        shape = {1: "(channels, length)", 2: "(channels, height, width)"}.get(wanted_sides, "(channels, …)")
        what = "the rows have" if place.first else f"{_layer(place)} gets"
        return f"{what} the shape {tuple(given.shape[1:])}, a convolution takes {shape}"
    said = _numbers(place, "channels", int(layer.in_channels), given.shape[1])  # type: ignore[arg-type]
    return said or _too_small(place, given)


def _too_small(place: Place, given: Tensor) -> str:
    size = "×".join(map(str, given.shape[2:]))
    what = "the images are" if place.first else f"{_layer(place)} gets"
    return f"{what} {size}, smaller than its window: use larger images, or fewer layers that make them smaller"


def _norm(place: Place, given: Tensor) -> str | None:
    return _numbers(place, "features", int(place.layer.num_features), given.shape[1])  # type: ignore[arg-type]


def _layer_norm(place: Place, given: Tensor) -> str | None:
    wanted = tuple(place.layer.normalized_shape)  # type: ignore[arg-type]
    found = tuple(given.shape[-len(wanted) :])
    what = "the model expects rows" if place.first else f"{_layer(place)} expects an input"
    return f"{what} that end in the shape {wanted}, they end in {found}"


def _codes(place: Place, given: Tensor) -> str | None:
    known = int(place.layer.num_embeddings)  # type: ignore[arg-type]
    low, high = int(given.min()), int(given.max())
    return f"{_layer(place)} knows the codes 0 to {known - 1}, it gets {low} to {high}"


SIZE_OF: tuple[tuple[Any, Callable[[Place, Tensor], str | None]], ...] = (
    ((nn.Linear, nn.RNNBase), _features),
    (nn.modules.conv._ConvNd, _channels),
    (nn.modules.batchnorm._BatchNorm, _norm),
    (nn.LayerNorm, _layer_norm),
    (nn.Embedding, _codes),
    ((nn.MaxPool2d, nn.AvgPool2d, nn.MaxPool1d, nn.AvgPool1d), _too_small),
)


# --- labels ------------------------------------------------------------------------------------------------


def _labels(text: str, _x: Any, _model: nn.Module, y: Any) -> str | None:
    labels = next(tensors_of(y), None)
    if labels is None:
        return None
    if found := re.search(r"Target (-?\d+) is out of bounds", text):
        return f"there is a label {found[1]}, the model has fewer outputs; labels count from 0 to the outputs less 1"
    if "expected target dtype to be Long" in text or "expected scalar type Long" in text:
        return f"the labels are {_dtype(labels)}, cross entropy takes whole numbers; convert them with y.long()"
    if "multi-target not supported" in text:
        shape = tuple(labels.shape)
        return f"the labels of a batch have the shape {shape}, cross entropy takes {shape[:1]}; use y.squeeze(1)"
    if found := re.search(r"Expected input batch_size \((\d+)\) to match target batch_size \((\d+)\)", text):
        return f"the model gives {found[1]} rows for {found[2]} labels; it must keep the first dimension as it is"
    if found := re.search(
        r"Target size \(torch\.Size\((.+?)\)\) must be the same as input size .*Size\((.+?)\)\)", text
    ):
        return f"the output has the shape {found[2]}, the labels {found[1]}; they must be the same, for example by output.squeeze(1)"
    return None


# --- where it stopped --------------------------------------------------------------------------------------


def stopped_in(model: nn.Module, x: Any) -> Place | None:
    """The innermost layer in which a forward pass of `x` stops; None where it does not."""
    entered: list[tuple[str, nn.Module, Tensor | None]] = []
    done: list[nn.Module] = []
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, inputs: Any, name: str = name) -> None:
            entered.append((name, module, next(tensors_of(inputs), None)))

        def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
            entered.pop()
            done.append(module)

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.no_grad():
            model(x)
    except Exception:
        if not entered:
            return None
        name, layer, given = entered[-1]
        weighed = any(next(module.parameters(recurse=False), None) is not None for module in done)
        return Place(name, layer, given, first=not weighed)
    finally:
        for handle in handles:
            handle.remove()
    return None
