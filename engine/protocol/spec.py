"""The settings of a run: one declaration for the form, the flags, the file format and the errors.

Every field of :class:`RunSpec` carries its bounds, unit and description, which :mod:`epochtop.engine.protocol.fields`
reads. Those about data are declared in :mod:`epochtop.engine.protocol.datasets`. Imports msgspec and the standard
library only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from epochtop.engine.protocol.datasets import DataSettings, declared

Value = str | int | float | bool | tuple[int, ...]
"""Type of a field's value."""


class Invalid(ValueError):  # noqa: N818 - reads as a statement: the field is invalid
    """A request that cannot be met, as one sentence for the user.

    `field` is the name of the setting that is wrong, or empty; `message` says what is wrong and what would be right.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


Steps = Annotated[int, Meta(ge=0, le=10**12)]
"""A number of steps."""


class RunSpec(DataSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a run. The defaults are the Iris job: 4-10-3 MLP, SGD 0.01, full batch, 20,000 epochs."""

    # --- model ---------------------------------------------------------------------------------------------

    model: Annotated[
        Literal["mlp", "cnn", "resnet", "lstm", "transformer"],
        declared(
            "network: mlp for all rows but a text, cnn for images and series, resnet for images, lstm for series, "
            "transformer for texts and series",
            "model",
        ),
    ] = "mlp"
    task: Annotated[
        str,
        declared(
            "custom model and data: PATH.py:FUNCTION, a function that returns an epochtop.Task; replaces dataset "
            "and model",
            "model",
            expects="PATH.py:FUNCTION (for example train_me.py:make_task) or empty",
            pattern=r"^$|^.+\.py:[A-Za-z_]\w*$",
        ),
    ] = ""
    hidden: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=10**12)], ...],
        declared(
            "units of each hidden layer of an mlp, separated by commas; empty gives a linear model",
            "model",
            max_length=64,
        ),
    ] = (10,)
    activation: Annotated[
        Literal["relu", "tanh", "sigmoid", "gelu", "silu", "none"],
        declared("activation function between layers", "model"),
    ] = "relu"
    dropout: Annotated[float, declared("dropout probability during training", "model", ge=0, lt=1)] = 0.0
    width: Annotated[
        int,
        declared(
            "channels of the first layer (cnn, resnet), units of a layer (lstm), or embedding size (transformer, texts)",
            "model",
            ge=1,
            le=65536,
        ),
    ] = 32
    layers: Annotated[
        int,
        declared(
            "number of layers of an lstm, blocks in a transformer, or blocks in each stage of a resnet",
            "model",
            ge=1,
            le=1000,
        ),
    ] = 2
    heads: Annotated[int, declared("attention heads of a transformer; must divide width", "model", ge=1, le=1024)] = 4
    context: Annotated[
        int,
        declared(
            "length of a row of text: characters, or words of a text with a label",
            "model",
            "characters or words",
            ge=2,
            le=65536,
        ),
    ] = 64

    # --- training ------------------------------------------------------------------------------------------

    epochs: Annotated[int, declared("passes over the training rows", "training", ge=1, le=10**12)] = 20_000
    max_steps: Annotated[
        Steps, declared("stop after this many steps, even before the last epoch; 0 sets no limit", "training", "steps")
    ] = 0
    max_seconds: Annotated[
        float, declared("stop after this much training time; 0 sets no limit", "training", "s", ge=0, le=1e9)
    ] = 0.0
    batch_size: Annotated[
        int,
        declared("rows per batch, shuffled every epoch; 0 puts all rows into one batch", "training", "rows", ge=0),
    ] = 0
    accumulate: Annotated[
        int,
        declared(
            "batches per step; their gradients are averaged (gradient accumulation)",
            "training",
            "batches",
            ge=1,
            le=10**6,
        ),
    ] = 1
    last_batch: Annotated[
        Literal["auto", "keep", "drop"],
        declared(
            "the smaller last batch of an epoch: keep it, drop its rows from the epoch, or auto: drop it only if the model "
            "cannot train on so few rows",
            "training",
        ),
    ] = "auto"
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "muon"],
        declared("optimizer that updates the weights", "training"),
    ] = "sgd"
    learning_rate: Annotated[float, declared("learning rate of the optimizer", "training", gt=0, le=1e6)] = 0.01
    momentum: Annotated[float, declared("momentum (sgd, rmsprop); 0 turns it off", "training", ge=0, lt=1)] = 0.0
    nesterov: Annotated[bool, declared("use Nesterov momentum (sgd)", "training")] = False
    weight_decay: Annotated[
        float, declared("L2 penalty, or decoupled weight decay (adamw, muon)", "training", ge=0, le=1e6)
    ] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine", "one_cycle", "step", "linear", "plateau", "range_test"],
        declared(
            "learning rate schedule: constant; cosine and linear: decay to 0; one_cycle: up, then down; step: divide by 10 "
            "after each third; plateau: divide by 10 when evaluations stop improving; range_test: rise from 1e-7 of the "
            "learning rate, to find a good one",
            "training",
        ),
    ] = "constant"
    warmup: Annotated[
        Steps, declared("steps over which the learning rate rises from 0 to its value", "training", "steps")
    ] = 0
    clip_norm: Annotated[
        float,
        declared("clip the gradient norm to this value; 0 turns clipping off", "training", ge=0, le=1e9),
    ] = 0.0
    label_smoothing: Annotated[
        float, declared("label smoothing in the cross entropy; 0 turns it off", "training", ge=0, lt=1)
    ] = 0.0
    patience: Annotated[
        int,
        declared(
            "stop after N evaluations without a better loss; 0 turns early stopping off (needs eval_epochs)",
            "training",
            "evaluations",
            ge=0,
            le=10**9,
        ),
    ] = 0
    ema: Annotated[
        float,
        declared(
            "decay of a moving average of the weights, for example 0.999; evaluates and saves the average; 0 turns it off",
            "training",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "fp16"],
        declared(
            "precision of the arithmetic; weights stay float32 (tf32 needs an NVIDIA GPU; fp16 scales the loss)",
            "training",
        ),
    ] = "fp32"
    channels_last: Annotated[
        bool, declared("use the channels-last memory layout, which speeds up convolutions on many devices", "training")
    ] = False
    checkpoint_activations: Annotated[
        bool, declared("recompute activations in the backward pass: less memory, slower steps", "training")
    ] = False
    deterministic: Annotated[bool, declared("use deterministic algorithms only: reproducible, slower", "training")] = (
        False
    )
    oom_retry: Annotated[bool, declared("when out of memory, restart with half the batch size", "training")] = False
    seed: Annotated[
        int,
        declared(
            "seed of the initial weights and of shuffling; it does not change the test split",
            "training",
            ge=0,
            le=2**63 - 1,
        ),
    ] = 1

    # --- machine -------------------------------------------------------------------------------------------

    device: Annotated[
        str,
        declared(
            "device to train on: auto, cpu, cuda, cuda:N or mps",
            "machine",
            expects="auto, cpu, cuda, cuda:N or mps",
            pattern=r"^(auto|cpu|cuda(:\d{1,3})?|mps)$",
        ),
    ] = "auto"
    threads: Annotated[
        int,
        declared(
            "CPU threads per operator; 0 times a few steps and uses all CPUs only if that is clearly faster",
            "machine",
            ge=0,
            le=4096,
        ),
    ] = 0
    executor: Annotated[
        Literal["auto", "eager", "graph", "compile"],
        declared(
            "how steps are executed: eager (operator by operator), graph (recorded once, then replayed as C code or a CUDA "
            "graph), compile (torch.compile); auto starts eagerly and switches to graph if that is faster",
            "machine",
        ),
    ] = "auto"
    processes: Annotated[
        int,
        declared(
            "training processes on this machine (one per GPU); each computes its share of every batch",
            "machine",
            ge=1,
            le=1024,
        ),
    ] = 1
    shard: Annotated[
        bool,
        declared(
            "split weights, gradients and optimizer state across processes (FSDP); needs 2 or more processes", "machine"
        ),
    ] = False

    # --- recording -----------------------------------------------------------------------------------------

    refresh_ms: Annotated[
        int, declared("interval at which losses are read from the device", "recording", "ms", ge=10, le=60_000)
    ] = 100
    eval_every: Annotated[
        float,
        declared(
            "time between evaluations; 0 evaluates only at the end",
            "recording",
            "s",
            ge=0,
            le=1e9,
        ),
    ] = 0.5
    eval_epochs: Annotated[
        int,
        declared(
            "evaluate every N epochs; 0 evaluates by time (eval_every)",
            "recording",
            "epochs",
            ge=0,
            le=10**12,
        ),
    ] = 0
    save_every: Annotated[
        float, declared("time between checkpoints; 0 saves only at the end", "recording", "s", ge=0, le=10**9)
    ] = 10.0
    keep_epochs: Annotated[
        int,
        declared(
            "keep a checkpoint of every Nth epoch; 0 keeps only the last and the best",
            "recording",
            "epochs",
            ge=0,
            le=10**12,
        ),
    ] = 0
    name: Annotated[
        str,
        declared(
            "name to find the run by; may be empty",
            "recording",
            expects="up to 60 letters, digits, spaces and . _ + @ : = -",
            pattern=r"^[\w .+@:=-]{0,60}$",
        ),
    ] = ""
    signals: Annotated[
        str,
        declared(
            "signals at which the run saves and stops, besides SIGTERM and SIGINT; separated by commas",
            "recording",
            expects="names among SIGUSR1, SIGUSR2, SIGXCPU, SIGQUIT and SIGALRM, separated by commas, or empty",
            pattern=r"^$|^ *(SIG)?(USR1|USR2|XCPU|QUIT|ALRM) *(, *(SIG)?(USR1|USR2|XCPU|QUIT|ALRM) *)*$",
        ),
    ] = "SIGUSR1,SIGXCPU"
