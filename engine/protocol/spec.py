"""What a run is asked to do: one declaration for the form, the flags, the file format and the errors.

Every field of :class:`RunSpec` carries its bounds, unit and description; :mod:`epochtop.engine.protocol.fields` reads them.
Imports msgspec and the standard library only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Value = str | int | float | bool | tuple[int, ...]
"""What a field of a spec can hold."""


class Invalid(ValueError):  # noqa: N818 - reads as a statement: the field is invalid
    """A value that a spec cannot take. `field` names it, the message says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


def declared(description: str, group: str, unit: str = "", expects: str = "", **bounds: Any) -> Meta:
    """What a field is annotated with. `expects` is what a right text is, in words; msgspec knows the `bounds`."""
    return Meta(description=description, extra={"group": group, "unit": unit, "expects": expects}, **bounds)


BUILT_IN = ("iris", "wine", "breast_cancer", "digits", "sums")
GENERATED = ("moons", "circles", "blobs", "spirals", "regression")
IMAGES = ("mnist", "fashion_mnist", "cifar10")
SOURCES = ("csv", "parquet", "npz", "npy", "images", "text", "openml")
"""Kinds of datasets that are written `KIND:WHERE`."""
FILES = ("csv", "parquet", "npz", "npy", "images", "text")
"""Those of them that are files of the user's."""
_WRITTEN = tuple(f"{kind}:{'FOLDER' if kind == 'images' else 'PATH'}" for kind in FILES)
WITH_TARGET = ("csv", "parquet", "openml")

Steps = Annotated[int, Meta(ge=0, le=10**12)]


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a run. The defaults are the Iris job: 4-10-3 MLP, SGD 0.01, full batch, 20,000 epochs."""

    # --- data ----------------------------------------------------------------------------------------------

    dataset: Annotated[
        str,
        declared(
            "iris, wine, breast_cancer, digits (scikit-learn); sums, moons, circles, blobs, spirals, regression "
            "(generated); mnist, fashion_mnist, cifar10, openml:NAME or openml:ID (fetched once, then cached); "
            "csv:PATH, parquet:PATH, npz:PATH, npy:PATH, images:FOLDER, text:PATH",
            "data",
            expects=f"{', '.join((*BUILT_IN, *GENERATED, *IMAGES))}, {', '.join(_WRITTEN)} or openml:NAME",
            pattern=rf"^({'|'.join((*BUILT_IN, *GENERATED, *IMAGES))}|({'|'.join(SOURCES)}):.+)$",
        ),
    ] = "iris"
    target: Annotated[str, declared("label column of a table (csv, parquet, openml)", "data")] = ""
    samples: Annotated[
        int, declared("rows of a generated dataset (moons to regression)", "data", "rows", ge=10, le=10**8)
    ] = 1000
    noise: Annotated[float, declared("noise of a generated dataset", "data", ge=0, le=100)] = 0.2
    test_fraction: Annotated[
        float,
        declared("share of the rows held out for the test loss; 0 trains on every row", "data", ge=0, lt=1),
    ] = 0.2
    validation_fraction: Annotated[
        float,
        declared(
            "share of the remaining rows by which the best weights, plateau and patience are judged; "
            "0 takes the test rows for that",
            "data",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    scaling: Annotated[
        Literal["minmax", "standard", "none"],
        declared("feature scaling, fitted on the training rows only", "data"),
    ] = "minmax"
    class_weights: Annotated[bool, declared("weigh each class by the inverse of its frequency", "data")] = False
    placement: Annotated[
        Literal["auto", "device", "stream"],
        declared(
            "where the rows lie: all on the device, or streamed from the host one batch ahead; "
            "auto keeps them on the device while they need at most half of its free memory",
            "data",
        ),
    ] = "auto"
    workers: Annotated[
        int,
        declared("processes that load an own task's Dataset; 0 loads in the training process", "data", ge=0, le=256),
    ] = 0

    # --- model ---------------------------------------------------------------------------------------------

    model: Annotated[
        Literal["mlp", "cnn", "resnet", "transformer"],
        declared("mlp for tables and images, cnn and resnet for images, transformer for text", "model"),
    ] = "mlp"
    task: Annotated[
        str,
        declared(
            "your own model and data: PATH.py:FUNCTION, a function that returns an epochtop.Task; it takes the place "
            "of dataset and model",
            "model",
            expects="PATH.py:FUNCTION, for example train_me.py:make_task, or nothing",
            pattern=r"^$|^.+\.py:[A-Za-z_]\w*$",
        ),
    ] = ""
    hidden: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=10**12)], ...],
        declared(
            "units of each hidden layer of an mlp, separated by commas; empty is a linear model", "model", max_length=64
        ),
    ] = (10,)
    activation: Annotated[
        Literal["relu", "tanh", "sigmoid", "gelu", "silu", "none"], declared("between the layers", "model")
    ] = "relu"
    dropout: Annotated[float, declared("share of units left out at random while training", "model", ge=0, lt=1)] = 0.0
    width: Annotated[
        int,
        declared(
            "channels of a cnn's or resnet's first layer, embedding size of a transformer", "model", ge=1, le=65536
        ),
    ] = 32
    layers: Annotated[
        int, declared("blocks of a transformer, or of each stage of a resnet", "model", ge=1, le=1000)
    ] = 2
    heads: Annotated[
        int, declared("attention heads of a transformer; they divide its width", "model", ge=1, le=1024)
    ] = 4
    context: Annotated[int, declared("characters a transformer sees", "model", "characters", ge=2, le=65536)] = 64

    # --- training ------------------------------------------------------------------------------------------

    epochs: Annotated[int, declared("passes over the training rows", "training", ge=1, le=10**12)] = 20_000
    max_steps: Annotated[
        Steps, declared("end after this many steps, whatever the epochs say; 0 is no limit", "training", "steps")
    ] = 0
    max_seconds: Annotated[
        float, declared("end after this much training time; 0 is no limit", "training", "s", ge=0, le=1e9)
    ] = 0.0
    batch_size: Annotated[
        int,
        declared("rows in a batch, shuffled every epoch; 0 takes all rows at once", "training", "rows", ge=0),
    ] = 0
    accumulate: Annotated[
        int,
        declared("batches whose gradients are averaged before a step is taken", "training", "batches", ge=1, le=10**6),
    ] = 1
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "muon"], declared("update rule", "training")
    ] = "sgd"
    learning_rate: Annotated[float, declared("step size of the optimizer", "training", gt=0, le=1e6)] = 0.01
    momentum: Annotated[float, declared("momentum of sgd and rmsprop; 0 is plain SGD", "training", ge=0, lt=1)] = 0.0
    nesterov: Annotated[bool, declared("Nesterov momentum (sgd)", "training")] = False
    weight_decay: Annotated[
        float, declared("L2 penalty, or decoupled decay (adamw, muon)", "training", ge=0, le=1e6)
    ] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine", "one_cycle", "step", "linear", "plateau", "range_test"],
        declared(
            "of the learning rate: constant; cosine or linear down to 0; one_cycle up and down; step a tenth after "
            "each third; plateau a tenth where evaluations stop to improve; range_test from 1e-7 of it up to find a good one",
            "training",
        ),
    ] = "constant"
    warmup: Annotated[
        Steps, declared("steps in which the learning rate grows from 0 to its value", "training", "steps")
    ] = 0
    clip_norm: Annotated[
        float,
        declared("scale gradients down to this norm where theirs is larger; 0 leaves them", "training", ge=0, le=1e9),
    ] = 0.0
    label_smoothing: Annotated[float, declared("share of certainty taken from each label", "training", ge=0, lt=1)] = (
        0.0
    )
    patience: Annotated[
        int,
        declared(
            "end after so many evaluations without a better loss; 0 never does (needs eval_epochs)",
            "training",
            "evaluations",
            ge=0,
            le=10**9,
        ),
    ] = 0
    ema: Annotated[
        float,
        declared(
            "evaluate and save a moving average of the weights with this decay, such as 0.999", "training", ge=0, lt=1
        ),
    ] = 0.0
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "fp16"],
        declared("of the arithmetic; weights stay float32 (tf32 needs a GPU, fp16 scales the loss)", "training"),
    ] = "fp32"
    channels_last: Annotated[bool, declared("memory layout that convolutions prefer on many devices", "training")] = (
        False
    )
    checkpoint_activations: Annotated[
        bool, declared("recompute activations in the backward pass: less memory, more time", "training")
    ] = False
    deterministic: Annotated[bool, declared("only algorithms that give the same result again; slower", "training")] = (
        False
    )
    oom_retry: Annotated[bool, declared("after out of memory, begin again with half the batch", "training")] = False
    seed: Annotated[
        int,
        declared(
            "of the initial weights and of shuffling; the test split stays the same",
            "training",
            ge=0,
            le=2**63 - 1,
        ),
    ] = 1

    # --- machine -------------------------------------------------------------------------------------------

    device: Annotated[
        str,
        declared(
            "auto, cpu, cuda, cuda:N or mps",
            "machine",
            expects="auto, cpu, cuda, cuda:N or mps",
            pattern=r"^(auto|cpu|cuda(:\d{1,3})?|mps)$",
        ),
    ] = "auto"
    threads: Annotated[
        int,
        declared(
            "CPU threads of an operator; 0 takes all only where a few timed steps are clearly faster with them",
            "machine",
            ge=0,
            le=4096,
        ),
    ] = 0
    executor: Annotated[
        Literal["auto", "eager", "graph", "compile"],
        declared(
            "how steps are executed: eager operator by operator, graph recorded once and replayed (C on the CPU, CUDA "
            "graphs), compile by torch.compile; auto begins eagerly and changes to graph where that pays",
            "machine",
        ),
    ] = "auto"
    processes: Annotated[
        int,
        declared(
            "training processes on this machine, one a GPU; each takes its share of every batch",
            "machine",
            ge=1,
            le=1024,
        ),
    ] = 1
    shard: Annotated[
        bool, declared("split weights, gradients and optimizer state over 2 or more processes (FSDP)", "machine")
    ] = False

    # --- recording -----------------------------------------------------------------------------------------

    refresh_ms: Annotated[
        int, declared("how often losses are read from the device", "recording", "ms", ge=10, le=60_000)
    ] = 100
    eval_every: Annotated[
        float,
        declared(
            "between evaluations on the test rows; 0 evaluates only at the end",
            "recording",
            "s",
            ge=0,
            le=1e9,
        ),
    ] = 0.5
    eval_epochs: Annotated[
        int,
        declared(
            "evaluate after every so many epochs instead of by the clock; 0 goes by the clock",
            "recording",
            "epochs",
            ge=0,
            le=10**12,
        ),
    ] = 0
    save_every: Annotated[
        float, declared("between checkpoints; 0 saves only at the end", "recording", "s", ge=0, le=10**9)
    ] = 10.0
    keep_epochs: Annotated[
        int,
        declared(
            "keep a checkpoint after every so many epochs; 0 keeps the last and the best",
            "recording",
            "epochs",
            ge=0,
            le=10**12,
        ),
    ] = 0
    name: Annotated[
        str,
        declared(
            "a name to find the run by; may be empty",
            "recording",
            expects="up to 60 letters, digits, spaces and . _ + @ : = -",
            pattern=r"^[\w .+@:=-]{0,60}$",
        ),
    ] = ""

    @property
    def source(self) -> str:
        """Kind of a `KIND:WHERE` dataset: csv, text, openml …; empty for one with a name of its own."""
        kind, colon, _ = self.dataset.partition(":")
        return kind if colon else ""
