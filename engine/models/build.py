"""Builds the network of a spec, from raw rows to outputs. Never reads data."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from math import isqrt, prod

from torch import nn

from epochtop.engine.data.columns.encoding import embedded_inputs
from epochtop.engine.data.dataset import Kind, Preparation
from epochtop.engine.models.layers import EmbeddedColumns, Pixels, Recomputed, activation_layers, dropout_layers
from epochtop.engine.models.networks.documents import DocumentEncoder, MeanEmbedding
from epochtop.engine.models.networks.images import SMALLEST, cnn, resnet
from epochtop.engine.models.networks.series import cnn_over_time, encoder, lstm
from epochtop.engine.models.networks.text import transformer
from epochtop.engine.protocol.spec import Invalid, RunSpec


def build_model(
    spec: RunSpec, preparation: Preparation, outputs: int, shape: tuple[int, ...] | None = None
) -> nn.Module:
    """Build the model of `spec` for rows as `preparation` describes them, with weights from the default generator.

    `shape` is the shape of a row; it may be omitted if `preparation` has the image or all column names. The model maps raw
    rows to (rows, outputs), or to (rows, context, outputs) for a text. Raises Invalid if rows and model do not fit.
    """
    _check_kind(spec, preparation)
    if preparation.kind == "text":
        return transformer(spec, outputs)
    if preparation.kind == "series":
        return _of_series(spec, preparation, outputs)
    if preparation.kind == "document":
        return _of_documents(spec, preparation, outputs)
    first: OrderedDict[str, nn.Module] = OrderedDict()
    if preparation.kind == "image":
        first["pixels"] = Pixels(preparation.pixel_mean, preparation.pixel_std, preparation.pixel_max)
    if spec.model == "mlp":
        features = features_of(preparation, shape)
        embedded = embedded_inputs(preparation.encodings)
        if embedded:
            first["columns"] = columns = EmbeddedColumns(features, embedded)
            features = columns.outputs
        perceptron = mlp(features, spec.hidden, outputs, spec.activation, spec.dropout, spec.checkpoint_activations)
        if preparation.kind == "image":
            first["flatten"] = nn.Flatten()
        return nn.Sequential(first | {"mlp": perceptron}) if first else perceptron
    image = _checked_image(spec, preparation)
    if preparation.kind == "table":
        first["unflatten"] = nn.Unflatten(1, image)
    network = (cnn if spec.model == "cnn" else resnet)(spec, image, outputs)
    return nn.Sequential(OrderedDict([*first.items(), *network.named_children()]))


def features_of(preparation: Preparation, shape: tuple[int, ...] | None = None) -> int:
    """Number of inputs of an mlp. Raises Invalid if it is unknown."""
    if shape is not None:
        return prod(shape)
    if preparation.image is not None:
        return prod(preparation.image)
    features = preparation.inputs
    if not features:
        raise Invalid("dataset", "the rows have no features; add at least one column besides the label")
    return features


MODELS: dict[Kind, tuple[str, ...]] = {
    "table": ("mlp", "cnn", "resnet"),
    "image": ("mlp", "cnn", "resnet"),
    "series": ("mlp", "cnn", "lstm", "transformer"),
    "text": ("transformer",),
    "document": ("mlp", "transformer"),
}
"""Models for each kind of rows; a table suits `cnn` and `resnet` if its rows are images."""
KINDS: dict[Kind, str] = {
    "table": "rows of a table",
    "image": "images",
    "series": "series",
    "text": "a text",
    "document": "texts with labels",
}
"""What people call the rows."""


def _check_kind(spec: RunSpec, preparation: Preparation) -> None:
    usable = MODELS[preparation.kind]
    if spec.model not in usable:
        raise Invalid("model", f"{spec.model} cannot read {KINDS[preparation.kind]}; use {' or '.join(usable)}")
    if spec.model == "transformer" and spec.width % spec.heads:
        raise Invalid("heads", f"width {spec.width} is not a multiple of {spec.heads} heads")


def _of_series(spec: RunSpec, preparation: Preparation, outputs: int) -> nn.Module:
    assert preparation.series is not None
    if spec.model == "mlp":
        return _flattened(spec, prod(preparation.series), outputs)
    networks = {"cnn": cnn_over_time, "lstm": lstm, "transformer": encoder}
    return networks[spec.model](spec, preparation.series, outputs)


def _of_documents(spec: RunSpec, preparation: Preparation, outputs: int) -> nn.Module:
    if spec.model == "transformer":
        return DocumentEncoder(spec, preparation.length, outputs)
    embedding = MeanEmbedding(spec.width, spec.dropout)
    perceptron = mlp(spec.width, spec.hidden, outputs, spec.activation, spec.dropout, spec.checkpoint_activations)
    return nn.Sequential(OrderedDict[str, nn.Module](embedding=embedding, mlp=perceptron))


def _flattened(spec: RunSpec, features: int, outputs: int) -> nn.Module:
    perceptron = mlp(features, spec.hidden, outputs, spec.activation, spec.dropout, spec.checkpoint_activations)
    return nn.Sequential(OrderedDict[str, nn.Module](flatten=nn.Flatten(), mlp=perceptron))


def _checked_image(spec: RunSpec, preparation: Preparation) -> tuple[int, int, int]:
    image = preparation.image
    if image is None:
        raise Invalid(
            "model",
            f"{spec.model} needs images, but the rows of {spec.dataset} are not; use mlp, or an image dataset such as digits, "
            "mnist, cifar10 or images:FOLDER",
        )
    if min(image[1:]) < SMALLEST:
        raise Invalid(
            "model",
            f"{spec.model} needs images of at least {SMALLEST}×{SMALLEST} pixels, but those of {spec.dataset} have "
            f"{image[1]}×{image[2]}; use mlp",
        )
    return image


# --- the perceptron, and its number of parameters -------------------------------------------------------------


def mlp(
    features: int,
    hidden: tuple[int, ...],
    outputs: int,
    activation: str,
    dropout: float = 0.0,
    checkpoint_activations: bool = False,
) -> nn.Sequential:
    """A multi-layer perceptron from (rows, features) to (rows, outputs), without an activation after the last layer."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((features, *hidden)):
        layers += [nn.Linear(wide, narrow), *activation_layers(activation), *dropout_layers(dropout)]
    layers.append(nn.Linear((features, *hidden)[-1], outputs))
    if not checkpoint_activations:
        return nn.Sequential(*layers)
    modules_per_layer = (len(layers) - 1) // len(hidden) if hidden else 1
    segment = modules_per_layer * layers_per_segment(len(hidden))
    return Recomputed(*layers, active=True, segment_length=segment, draws=dropout > 0)


def layers_per_segment(hidden: int) -> int:
    """Hidden layers that are recomputed together; the square root of their number needs the least memory."""
    return max(1, isqrt(hidden))


def parameter_count(features: int, hidden: tuple[int, ...], outputs: int) -> int:
    """Number of parameters of :func:`mlp`, without building it."""
    return sum(wide * narrow + narrow for wide, narrow in pairwise((features, *hidden, outputs)))
