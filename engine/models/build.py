"""The networks a run can train, from raw rows to outputs."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from math import isqrt, prod

from torch import nn

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.models.images import SMALLEST, cnn, resnet
from epochtop.engine.models.layers import Pixels, Recomputed, activation_layers, dropout_layers
from epochtop.engine.models.text import transformer
from epochtop.engine.protocol.spec import Invalid, RunSpec


def build_model(
    spec: RunSpec, preparation: Preparation, outputs: int, shape: tuple[int, ...] | None = None
) -> nn.Module:
    """The model of `spec` with fresh weights from the default generator, for the rows that `preparation` describes.

    `shape` is that of a row; it may be left out where `preparation` has the image or the names of all columns. From
    raw rows to (rows, outputs), or (rows, context, outputs) for a text. Raises Invalid where rows and model do not fit.
    """
    if spec.model == "transformer" or preparation.kind == "text":
        return transformer(_checked_text(spec, preparation), outputs)
    first: OrderedDict[str, nn.Module] = OrderedDict()
    if preparation.kind == "image":
        first["pixels"] = Pixels(preparation.pixel_mean, preparation.pixel_std)
    if spec.model == "mlp":
        features = features_of(preparation, shape)
        perceptron = mlp(features, spec.hidden, outputs, spec.activation, spec.dropout, spec.checkpoint_activations)
        return nn.Sequential(first | {"flatten": nn.Flatten(), "mlp": perceptron}) if first else perceptron
    image = _checked_image(spec, preparation)
    if preparation.kind == "table":
        first["unflatten"] = nn.Unflatten(1, image)
    network = (cnn if spec.model == "cnn" else resnet)(spec, image, outputs)
    return nn.Sequential(OrderedDict([*first.items(), *network.named_children()]))


def features_of(preparation: Preparation, shape: tuple[int, ...] | None = None) -> int:
    """Numbers in a row, as an mlp takes it in. Raises Invalid where nothing says it."""
    if shape is not None:
        return prod(shape)
    if preparation.image is not None:
        return prod(preparation.image)
    features = len(preparation.columns) or len(preparation.offset)
    if not features:
        raise Invalid("dataset", "has rows without a feature; at least one column besides the label is needed")
    return features


def _checked_text(spec: RunSpec, preparation: Preparation) -> RunSpec:
    if preparation.kind != "text":
        raise Invalid("model", f"the transformer reads text:PATH; use mlp, cnn or resnet for {spec.dataset}")
    if spec.model != "transformer":
        raise Invalid("model", f"text:PATH is for the transformer, not for {spec.model}")
    if spec.width % spec.heads:
        raise Invalid("heads", f"{spec.heads} heads do not divide a width of {spec.width}")
    return spec


def _checked_image(spec: RunSpec, preparation: Preparation) -> tuple[int, int, int]:
    image = preparation.image
    if image is None:
        raise Invalid(
            "model",
            f"{spec.model} needs images, and the rows of {spec.dataset} are not: use mlp, or a dataset of images "
            "such as digits, mnist, cifar10 or images:FOLDER",
        )
    if min(image[1:]) < SMALLEST:
        raise Invalid(
            "model",
            f"{spec.model} needs images of at least {SMALLEST}×{SMALLEST} pixels, those of {spec.dataset} have "
            f"{image[1]}×{image[2]}: use mlp",
        )
    return image


# --- the perceptron, and what it weighs before it is built ----------------------------------------------------


def mlp(
    features: int,
    hidden: tuple[int, ...],
    outputs: int,
    activation: str,
    dropout: float = 0.0,
    checkpoint_activations: bool = False,
) -> nn.Sequential:
    """A multi-layer perceptron from (rows, features) to (rows, outputs), without a last activation."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((features, *hidden)):
        layers += [nn.Linear(wide, narrow), *activation_layers(activation), *dropout_layers(dropout)]
    layers.append(nn.Linear((features, *hidden)[-1], outputs))
    if not checkpoint_activations:
        return nn.Sequential(*layers)
    each = (len(layers) - 1) // len(hidden) if hidden else 1
    return Recomputed(*layers, active=True, layers_each=each * layers_a_part(len(hidden)), draws=dropout > 0)


def layers_a_part(hidden: int) -> int:
    """Hidden layers that are recomputed together: the root of their number needs the least memory."""
    return max(1, isqrt(hidden))


def parameter_count(features: int, hidden: tuple[int, ...], outputs: int) -> int:
    """Parameters of :func:`mlp`, computed without building it."""
    return sum(wide * narrow + narrow for wide, narrow in pairwise((features, *hidden, outputs)))
