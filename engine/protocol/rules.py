"""The rules between fields of a spec. Bounds of single fields are checked where a spec is read.

Imports msgspec and the standard library only.
"""

from __future__ import annotations

from epochtop.engine.protocol.spec import WITH_TARGET, Invalid, RunSpec


def check(spec: RunSpec) -> None:
    """The rules between fields; bounds of single fields are checked where a spec is read. Raises Invalid."""
    for wrong in (_wrong_data, _wrong_model, _wrong_training, _wrong_machine):
        wrong(spec)


def _wrong_data(spec: RunSpec) -> None:
    if spec.target and spec.source not in WITH_TARGET and not spec.task:
        raise Invalid(
            "target", f"is for csv:PATH, parquet:PATH and openml:NAME; the dataset {spec.dataset} has its own labels"
        )
    if spec.class_weights and spec.dataset in ("regression",):
        raise Invalid("class_weights", "regression has no classes; turn it off")


def _wrong_model(spec: RunSpec) -> None:
    if spec.task:
        return
    text = spec.source == "text"
    if text != (spec.model == "transformer"):
        raise Invalid(
            "model",
            f"text:PATH is for the transformer, not for {spec.model}"
            if text
            else f"the transformer reads text:PATH; use mlp, cnn or resnet for {spec.dataset}",
        )
    if spec.model == "transformer" and spec.width % spec.heads:
        raise Invalid(
            "heads",
            f"{spec.heads} heads do not divide a width of {spec.width}; {spec.width} can be split into {_divisors(spec.width)}",
        )
    if spec.checkpoint_activations and spec.model == "mlp" and len(spec.hidden) < 2:
        raise Invalid(
            "checkpoint_activations", "saves memory in models with several blocks; this mlp has one hidden layer"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(part) for part in range(1, 65) if number % part == 0)


def _wrong_training(spec: RunSpec) -> None:
    if spec.momentum and spec.optimizer not in ("sgd", "rmsprop"):
        raise Invalid("momentum", f"is used by sgd and rmsprop only; leave it at 0 for {spec.optimizer}")
    if spec.nesterov and not (spec.optimizer == "sgd" and spec.momentum):
        raise Invalid("nesterov", "needs sgd with a momentum above 0, such as 0.9")
    if spec.precision == "fp16" and spec.optimizer not in ("sgd", "adam", "adamw", "adagrad"):
        raise Invalid(
            "precision",
            f"fp16 needs sgd, adam, adamw or adagrad: torch has no fused {spec.optimizer} that can skip a step without a read",
        )
    if spec.schedule == "range_test" and spec.warmup:
        raise Invalid("warmup", "range_test has its own course; leave it at 0")
    if (spec.patience or spec.schedule == "plateau") and not spec.eval_epochs:
        what = "patience" if spec.patience else "plateau"
        raise Invalid(
            "eval_epochs",
            f"{what} counts evaluations, and those by the clock come at other steps every time; use 1 or more",
        )
    if spec.label_smoothing and spec.dataset in ("sums", "regression") and not spec.task:
        raise Invalid("label_smoothing", f"is for classes with cross entropy; {spec.dataset} has another loss")


def _wrong_machine(spec: RunSpec) -> None:
    if spec.processes > 1 and (spec.device == "mps" or spec.device.startswith("cuda:")):
        raise Invalid(
            "device", f"{spec.processes} processes do not share {spec.device}; use cuda (one GPU each) or cpu"
        )
    if spec.shard and spec.processes < 2:
        raise Invalid("shard", "needs at least 2 processes that share the weights; set processes, or turn it off")
    if spec.precision == "tf32" and spec.device in ("cpu", "mps"):
        raise Invalid("precision", f"tf32 is an arithmetic of NVIDIA GPUs; use fp32 or bf16 on {spec.device}")
