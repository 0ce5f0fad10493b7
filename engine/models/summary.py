"""What a model is made of and what it needs, found without memory for it and without drawing a random number.

Shapes and what autograd keeps come from a pass over the meta device, where tensors have no contents; a perceptron's
from a formula, so that absurd sizes are answered too. See tests/test_model_memory.py for how close it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import prod

import msgspec
import torch

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.models.build import build_model, features_of, layers_a_part, parameter_count
from epochtop.engine.models.fsdp_units import AS_ONE
from epochtop.engine.models.trace import measure
from epochtop.engine.protocol.requests import LayerFact, ModelSummary
from epochtop.engine.protocol.spec import RunSpec

FLOAT_BYTES = 4
PIECE = {"relu": "ReLU", "tanh": "Tanh", "sigmoid": "Sigmoid", "gelu": "GELU", "silu": "SiLU"}
KEEPS_ITS_INPUT = ("gelu", "silu")
"""Activations whose gradient needs their input; the others' needs their output, which the next layer keeps anyway."""
OPTIMIZER_COPIES = {"sgd": 0, "adam": 3, "adamw": 3, "rmsprop": 2, "adagrad": 2, "muon": 2}
"""Tensors of the parameters' size beside weights and gradients: what an optimizer remembers, and its work space."""


def summary_of(
    spec: RunSpec, preparation: Preparation, outputs: int, rows: int, shape: tuple[int, ...] | None = None
) -> ModelSummary:
    """The model that `spec` asks for, before it is built, in a batch of `rows`. Raises Invalid as build_model does."""
    if spec.model == "mlp" and preparation.kind != "text":
        prefix = preparation.kind == "image"
        return perceptron(spec, features_of(preparation, shape), outputs, rows, preparation.image if prefix else None)
    with torch.device("meta"):
        model = build_model(spec, preparation, outputs, shape)
    if preparation.kind == "text":
        example = torch.empty(rows, spec.context, dtype=torch.uint8, device="meta")
    elif preparation.kind == "image":
        example = torch.empty(rows, *(preparation.image or ()), dtype=torch.uint8, device="meta")
    else:
        example = torch.empty(rows, features_of(preparation, shape), device="meta")
    return measure(model, example)


def memory_bytes(spec: RunSpec, summary: ModelSummary) -> int:
    """Bytes of weights, gradients, optimizer state, averaged weights and activations of one step of `spec`."""
    copies = 1 + OPTIMIZER_COPIES[spec.optimizer] + bool(spec.momentum)
    trained = FLOAT_BYTES * copies * summary.trained
    every = FLOAT_BYTES * (1 + bool(spec.ema)) * summary.parameters
    added_up = FLOAT_BYTES * bool(spec.accumulate > 1) * summary.trained
    halved = 2 * (spec.precision in ("bf16", "fp16")) * summary.parameters
    whole = added_up + halved + working_bytes(spec, summary)
    if not spec.shard:
        return trained + every + whole
    return (trained + every) // spec.processes + FLOAT_BYTES * GATHERED * largest_part(summary) + whole


REMEMBERED = {"sgd": 0, "adam": 2, "adamw": 2, "rmsprop": 1, "adagrad": 1, "muon": 1}
"""Tensors of the parameters' size that an optimizer keeps from step to step, momentum of sgd apart."""


def held_bytes(spec: RunSpec, summary: ModelSummary, on_host: bool = False) -> int:
    """Bytes that a run of `spec` holds at its peak, its rows apart: in a step, or while a checkpoint is copied.

    Beside either lie the best weights so far; a checkpoint is a copy of weights, average and what the optimizer keeps.
    Where the host is the device (`on_host`), a tensor that is being written lies there once more.
    """
    best = FLOAT_BYTES * summary.parameters
    step = memory_bytes(spec, summary)
    if spec.shard:  # whole checkpoints go to the host, tensor by tensor
        return step + best // spec.processes
    written = FLOAT_BYTES * largest_part(summary) if on_host else 0
    kept = (REMEMBERED[spec.optimizer] + bool(spec.momentum and spec.optimizer == "sgd")) * summary.trained
    return max(step, 2 * FLOAT_BYTES * ((1 + bool(spec.ema)) * summary.parameters + kept) + written) + best


GATHERED = 3
"""Tensors of the size of the largest part that sharding needs: the part at work, the next one, and gradients."""


def largest_part(summary: ModelSummary) -> int:
    """Parameters of the largest block or layer, or of a small model: those gathered at a time (:mod:`epochtop.engine.models.fsdp_units`)."""
    if summary.parameters <= AS_ONE:
        return summary.parameters
    sizes: Counter[str] = Counter()
    for layer in summary.layers:
        names = layer.name.split(".")
        number = next((at for at, name in enumerate(names) if name.isdigit()), 0)
        sizes[".".join(names[: number + 1])] += layer.parameters
    return max(sizes.values(), default=0)


def working_bytes(spec: RunSpec, summary: ModelSummary) -> int:
    """Bytes that a batch needs at the peak: what is kept for the backward pass, and the gradient it works on."""
    largest = max((layer.output_bytes or 0 for layer in summary.layers), default=0)
    float32 = summary.activation_bytes + largest
    return int(float32 * HALF_SHARE) if spec.precision in ("bf16", "fp16") else float32


HALF_SHARE = 0.7
"""Of the float32 activations that autocast leaves: norms, softmax and losses stay float32."""


# --- a perceptron by formula --------------------------------------------------------------------------------


def perceptron(
    spec: RunSpec, features: int, outputs: int, rows: int, image: Sequence[int] | None = None
) -> ModelSummary:
    """The summary of :func:`epochtop.engine.models.build.mlp`, of any size. `image` is the shape of a row that is flattened first."""
    layers: list[LayerFact] = []
    prefix = ""
    if image is not None:
        prefix = "mlp."
        layers += [
            _fact("pixels", "Pixels", (rows, *image), 0),
            _fact("flatten", "Flatten", (rows, features), 0),
        ]
    kinds: list[tuple[str, int, int]] = []
    for wide, narrow in pairwise((features, *spec.hidden)):
        kinds.append(("Linear", narrow, wide * narrow + narrow))
        if spec.activation != "none":
            kinds.append((PIECE[spec.activation], narrow, 0))
        if spec.dropout:
            kinds.append(("Dropout", narrow, 0))
    last = (features, *spec.hidden)[-1]
    kinds.append(("Linear", outputs, last * outputs + outputs))
    layers += [_fact(f"{prefix}{at}", kind, (rows, units), count) for at, (kind, units, count) in enumerate(kinds)]
    parameters = parameter_count(features, spec.hidden, outputs)
    batch = rows * features * (FLOAT_BYTES + (image is not None))
    return ModelSummary(
        rows=rows,
        layers=tuple(layers),
        parameters=parameters,
        trained=parameters,
        activation_bytes=batch + FLOAT_BYTES * rows * (_kept_units(spec) + 2 * outputs),
    )


def _fact(name: str, kind: str, output: tuple[int, ...], parameters: int) -> LayerFact:
    return LayerFact(
        name=name, kind=kind, output=output, parameters=parameters, output_bytes=FLOAT_BYTES * prod(output)
    )


def _kept_units(spec: RunSpec) -> int:
    """Numbers a row that the hidden layers keep for the backward pass.

    Dropout keeps its mask and gives a new output; an activation without one keeps what the next layer keeps too.
    """
    input_kept, none = spec.activation in KEEPS_ITS_INPUT, spec.activation == "none"
    copies = 1 + input_kept + bool(spec.dropout) * (2 - (input_kept or none))
    if not spec.checkpoint_activations:
        return copies * sum(spec.hidden)
    each = layers_a_part(len(spec.hidden))
    end = len(spec.hidden) // each * each
    parts = [spec.hidden[first : first + each] for first in range(0, end, each)]
    always = sum(part[-1] for part in parts) + copies * sum(spec.hidden[end:])
    return always + max((copies * sum(part) - part[-1] for part in parts), default=0)


def scaled(summary: ModelSummary, rows: int) -> ModelSummary:
    """The same model in a batch of another size, where all but the parameters grow with the rows."""
    return msgspec.structs.replace(
        summary,
        rows=rows,
        activation_bytes=summary.activation_bytes * rows // summary.rows,
        layers=tuple(_scaled(layer, summary.rows, rows) for layer in summary.layers),
    )


def _scaled(layer: LayerFact, before: int, rows: int) -> LayerFact:
    if not layer.output or layer.output_bytes is None or layer.output[0] != before:
        return layer
    return msgspec.structs.replace(
        layer, output=(rows, *layer.output[1:]), output_bytes=layer.output_bytes // before * rows
    )
