"""Summaries and memory estimates of models, without allocating memory or drawing random numbers.

Shapes and saved activations come from a pass on the meta device, where tensors have no contents; for a perceptron they
come from a formula, which works for absurd sizes too. tests/job/test_memory_estimate.py shows how close the estimates are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import prod

import msgspec
import torch

from epochtop.engine.data.columns.encoding import embedded_inputs
from epochtop.engine.data.dataset import Preparation
from epochtop.engine.models.build import build_model, features_of, layers_per_segment, parameter_count
from epochtop.engine.models.fsdp_units import UNDIVIDED_WEIGHTS
from epochtop.engine.models.trace import measure
from epochtop.engine.protocol.requests import LayerFact, ModelSummary
from epochtop.engine.protocol.spec import RunSpec

FLOAT_BYTES = 4
ACTIVATION_NAMES = {"relu": "ReLU", "tanh": "Tanh", "sigmoid": "Sigmoid", "gelu": "GELU", "silu": "SiLU"}
SAVES_INPUT = ("gelu", "silu")
"""Activations whose gradient needs their input. Others need their output, which the next layer saves anyway."""
OPTIMIZER_COPIES = {"sgd": 0, "adam": 3, "adamw": 3, "rmsprop": 2, "adagrad": 2, "muon": 2}
"""Optimizer state and work space during a step, in tensors of the parameters' size."""


def summary_of(
    spec: RunSpec, preparation: Preparation, outputs: int, rows: int, shape: tuple[int, ...] | None = None
) -> ModelSummary:
    """The summary of the model of `spec` for a batch of `rows`, without building it. Raises Invalid as build_model does."""
    by_formula = preparation.kind in ("table", "image") and not embedded_inputs(preparation.encodings)
    if spec.model == "mlp" and by_formula:
        prefix = preparation.kind == "image"
        return perceptron(spec, features_of(preparation, shape), outputs, rows, preparation.image if prefix else None)
    with torch.device("meta"):
        model = build_model(spec, preparation, outputs, shape)
    if preparation.kind == "text":
        example = torch.empty(rows, spec.context, dtype=torch.uint8, device="meta")
    elif preparation.kind == "image":
        example = torch.empty(rows, *(preparation.image or ()), dtype=torch.uint8, device="meta")
    elif preparation.kind == "series":
        example = torch.empty(rows, *(preparation.series or ()), device="meta")
    elif preparation.kind == "document":
        example = torch.empty(rows, preparation.length, dtype=torch.int64, device="meta")
    else:
        example = torch.empty(rows, features_of(preparation, shape), device="meta")
    return measure(model, example, rows)


def memory_bytes(spec: RunSpec, summary: ModelSummary) -> int:
    """Memory of one step: weights, gradients, optimizer state, averaged weights and activations."""
    copies = 1 + OPTIMIZER_COPIES[spec.optimizer] + bool(spec.momentum)
    trained = FLOAT_BYTES * copies * summary.trained
    weights = FLOAT_BYTES * (1 + bool(spec.ema)) * summary.parameters
    accumulated = FLOAT_BYTES * bool(spec.accumulate > 1) * summary.trained
    half_precision = 2 * (spec.precision in ("bf16", "fp16")) * summary.parameters
    per_process = accumulated + half_precision + working_bytes(spec, summary)
    if not spec.shard:
        return trained + weights + per_process
    return (trained + weights) // spec.processes + FLOAT_BYTES * GATHERED * largest_unit(summary) + per_process


OPTIMIZER_STATE = {"sgd": 0, "adam": 2, "adamw": 2, "rmsprop": 1, "adagrad": 1, "muon": 1}
"""Optimizer state between steps, in tensors of the parameters' size, without the momentum of sgd."""


def held_bytes(spec: RunSpec, summary: ModelSummary, on_host: bool = False) -> int:
    """Peak memory of a run without its rows: in a step, or while a checkpoint is copied, plus the best weights.

    A checkpoint is a copy of weights, averaged weights and optimizer state. If the host is the device (`on_host`), the
    tensor being written needs memory once more.
    """
    best = FLOAT_BYTES * summary.parameters
    step = memory_bytes(spec, summary)
    if spec.shard:  # checkpoints go to the host, tensor by tensor
        return step + best // spec.processes
    written = FLOAT_BYTES * largest_unit(summary) if on_host else 0
    copied = checkpoint_bytes(spec, summary.parameters, summary.trained) - best
    return max(step, 2 * copied + written) + best


def checkpoint_bytes(spec: RunSpec, parameters: int, trained: int) -> int:
    """Size of the checkpoints `last` (weights, averaged weights, optimizer state) and `best` (weights)."""
    state = OPTIMIZER_STATE[spec.optimizer] + bool(spec.momentum and spec.optimizer == "sgd")
    return FLOAT_BYTES * ((2 + bool(spec.ema)) * parameters + state * trained)


GATHERED = 3
"""Tensors of the size of the largest unit that FSDP needs: the running unit, the next one, and gradients."""


def largest_unit(summary: ModelSummary) -> int:
    """Parameters of the largest FSDP unit (:mod:`epochtop.engine.models.fsdp_units`), estimated from layer names."""
    if summary.parameters <= UNDIVIDED_WEIGHTS:
        return summary.parameters
    sizes: Counter[str] = Counter()
    for layer in summary.layers:
        names = layer.name.split(".")
        number = next((index for index, name in enumerate(names) if name.isdigit()), 0)
        sizes[".".join(names[: number + 1])] += layer.parameters
    return max(sizes.values(), default=0)


def working_bytes(spec: RunSpec, summary: ModelSummary) -> int:
    """Peak memory of a batch: saved activations, and the gradient of the largest one."""
    largest = max((layer.output_bytes or 0 for layer in summary.layers), default=0)
    float32 = summary.activation_bytes + largest
    return int(float32 * HALF_SHARE) if spec.precision in ("bf16", "fp16") else float32


HALF_SHARE = 0.7
"""Size of activations under autocast relative to float32; norms, softmax and losses stay float32."""


# --- perceptrons, by formula --------------------------------------------------------------------------------


def perceptron(
    spec: RunSpec, features: int, outputs: int, rows: int, image: Sequence[int] | None = None
) -> ModelSummary:
    """The summary of :func:`epochtop.engine.models.build.mlp`; `image` is the shape of rows that are flattened first."""
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
            kinds.append((ACTIVATION_NAMES[spec.activation], narrow, 0))
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
        activation_bytes=batch + FLOAT_BYTES * rows * (_saved_units(spec) + 2 * outputs),
    )


def _fact(name: str, kind: str, output: tuple[int, ...], parameters: int) -> LayerFact:
    return LayerFact(
        name=name, kind=kind, output=output, parameters=parameters, output_bytes=FLOAT_BYTES * prod(output)
    )


def _saved_units(spec: RunSpec) -> int:
    """Values per row that the hidden layers save for the backward pass.

    Dropout saves its mask and makes a new output; an activation without dropout saves what the next layer saves too.
    """
    saves_input, none = spec.activation in SAVES_INPUT, spec.activation == "none"
    copies = 1 + saves_input + bool(spec.dropout) * (2 - (saves_input or none))
    if not spec.checkpoint_activations:
        return copies * sum(spec.hidden)
    length = layers_per_segment(len(spec.hidden))
    end = len(spec.hidden) // length * length
    segments = [spec.hidden[first : first + length] for first in range(0, end, length)]
    always = sum(segment[-1] for segment in segments) + copies * sum(spec.hidden[end:])
    return always + max((copies * sum(segment) - segment[-1] for segment in segments), default=0)


def scaled(summary: ModelSummary, rows: int) -> ModelSummary:
    """The summary for a batch of another size; everything except the parameters grows with the rows."""
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
