"""Rules between the fields of a spec. The bounds of single fields are checked when a spec is parsed.

Imports msgspec and the standard library only.
"""

from __future__ import annotations

import codecs

from epochtop.engine.protocol.datasets import (
    WITH_ENCODING,
    WITH_PROBLEM,
    WITH_TARGET,
    is_labeled_text,
    models_of,
    takes_problem,
    takes_target,
)
from epochtop.engine.protocol.spec import Invalid, RunSpec


def check(spec: RunSpec) -> None:
    """Check every rule between fields. Raises Invalid for the first one that `spec` breaks."""
    for check_group in (_check_data, _check_model, _check_training, _check_machine):
        check_group(spec)


def _check_data(spec: RunSpec) -> None:
    if spec.target and not takes_target(spec.dataset) and not spec.task:
        raise Invalid(
            "target", f"applies to tables only, such as csv:PATH or openml:NAME; leave it empty for {spec.dataset}"
        )
    for name in ("columns", "kinds"):
        if getattr(spec, name) and spec.source not in WITH_TARGET and not spec.task:
            raise Invalid(name, f"applies to {', '.join(WITH_TARGET)} only; leave it empty for {spec.dataset}")
    if spec.encoding != "auto":
        _check_encoding(spec)
    if spec.problem != "auto" and not takes_problem(spec.dataset) and not spec.task:
        raise Invalid(
            "problem",
            f"applies to {', '.join(WITH_PROBLEM)} only; the labels of {spec.dataset} decide, leave it on auto",
        )
    if spec.class_weights and spec.dataset == "regression":
        raise Invalid("class_weights", "the dataset regression has no classes; turn class_weights off")


def _check_encoding(spec: RunSpec) -> None:
    try:
        codec = codecs.lookup(spec.encoding)
        codec.incrementaldecoder().decode(b"", final=True)
        is_text = isinstance(codec.decode(b"")[0], str)
    except (LookupError, TypeError, ValueError):
        is_text = False
    if not is_text:
        raise Invalid(
            "encoding", f"Python has no encoding {spec.encoding!r}; use auto, utf-8, latin-1, utf-16 or another one"
        )
    if spec.source not in WITH_ENCODING and not spec.task:
        raise Invalid("encoding", f"applies to {', '.join(WITH_ENCODING)} only; leave it on auto for {spec.dataset}")


def _check_model(spec: RunSpec) -> None:
    if spec.task:
        return
    usable = models_of(spec.dataset)
    if spec.model not in usable:
        raise Invalid("model", f"{spec.model} cannot read {_where(spec)}; use {' or '.join(usable)}")
    if spec.model == "transformer" and spec.width % spec.heads:
        raise Invalid(
            "heads",
            f"width {spec.width} is not a multiple of {spec.heads} heads; use one of {_divisors(spec.width)}",
        )
    if spec.checkpoint_activations and spec.model == "lstm":
        raise Invalid("checkpoint_activations", "an lstm cannot recompute its activations; turn it off")
    if spec.checkpoint_activations and spec.model == "mlp" and len(spec.hidden) < 2:
        raise Invalid(
            "checkpoint_activations", "needs a model with several blocks; this mlp has fewer than two hidden layers"
        )


def _where(spec: RunSpec) -> str:
    """The dataset, or the kind of file, as it is written."""
    if not spec.source:
        return spec.dataset
    labeled = " with labels" if is_labeled_text(spec.dataset) else ""
    return f"{spec.source}:{'FOLDER' if spec.source == 'images' else 'PATH'}{labeled}"


def _divisors(number: int) -> str:
    return ", ".join(str(part) for part in range(1, 65) if number % part == 0)


def _check_training(spec: RunSpec) -> None:
    if spec.momentum and spec.optimizer not in ("sgd", "rmsprop"):
        raise Invalid("momentum", f"applies to sgd and rmsprop only; set it to 0 for {spec.optimizer}")
    if spec.nesterov and not (spec.optimizer == "sgd" and spec.momentum):
        raise Invalid("nesterov", "needs optimizer sgd and a momentum above 0, for example 0.9")
    if spec.precision == "fp16" and spec.optimizer not in ("sgd", "adam", "adamw", "adagrad"):
        raise Invalid(
            "precision",
            f"fp16 needs sgd, adam, adamw or adagrad: torch's {spec.optimizer} cannot skip a step without reading the device",
        )
    if spec.schedule == "range_test" and spec.warmup:
        raise Invalid("warmup", "range_test sets the learning rate of every step; set warmup to 0")
    if (spec.patience or spec.schedule == "plateau") and not spec.eval_epochs:
        what = "patience" if spec.patience else "plateau"
        raise Invalid(
            "eval_epochs",
            f"{what} needs evaluations at fixed epochs, since timed evaluations are not reproducible; use 1 or more",
        )
    if spec.label_smoothing and spec.dataset in ("sums", "regression") and not spec.task:
        raise Invalid(
            "label_smoothing", f"needs classes and cross entropy; the loss of {spec.dataset} is a different one"
        )


def _check_machine(spec: RunSpec) -> None:
    if spec.processes > 1 and (spec.device == "mps" or spec.device.startswith("cuda:")):
        raise Invalid(
            "device", f"{spec.processes} processes cannot share {spec.device}; use cuda (one GPU per process) or cpu"
        )
    if spec.shard and spec.processes < 2:
        raise Invalid("shard", "needs at least 2 processes; set processes to 2 or more, or turn shard off")
    if spec.precision == "tf32" and spec.device in ("cpu", "mps"):
        raise Invalid("precision", f"tf32 needs an NVIDIA GPU; use fp32 or bf16 on {spec.device}")
