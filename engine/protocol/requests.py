"""The pipe between a viewer and its standby engine: requests and replies, one line of JSON each.

Imports msgspec and the standard library only, because both sides read it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec

# --- model summary ----------------------------------------------------------------------------------------


class LayerFact(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a model: a row of the summary table."""

    name: str
    """Path in the model, such as `blocks.0.conv1`."""
    kind: str
    """Class name, such as `Conv2d`."""
    output: tuple[int, ...] | None
    """Shape of the output, rows first; None if the layer is not called or returns no tensor."""
    parameters: int
    """Number of parameters that belong to this layer and to no layer inside it."""
    output_bytes: int | None
    """Size of the output in bytes; None where `output` is None."""


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A model's layers, and the memory of one training batch in float32."""

    rows: int
    """Rows in the batch."""
    layers: tuple[LayerFact, ...]
    parameters: int
    """Number of parameters; a shared one counts once."""
    trained: int
    """Number of parameters that are not frozen."""
    activation_bytes: int
    """Bytes that autograd saves for the backward pass, including the batch and the loss."""


# --- requests and replies ---------------------------------------------------------------------------------


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Describe what a run of `spec` would do; writes nothing. Answered by :class:`Plan`."""

    spec: RunSpec


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Check `spec`, create a run directory, answer with :class:`Accepted`, and train."""

    spec: RunSpec
    home: str
    """Path of the home folder in which the run directory is created."""


class Continue(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Resume a run that ended before its last step: answer with :class:`Accepted`, and train."""

    run: str
    """Path of the run directory."""
    trusted_owner: str = ""
    """Login name of another owner of the run whose task may be executed; empty for none."""
    edited_task: bool = False
    """Whether the task's files are executed as they are now, not as the run stores them."""


class FindBatch(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Find the largest batch of `spec` that fits, answer with :class:`BatchFound`, and end the engine."""

    spec: RunSpec
    margin: float = 0.8
    """Share of the free memory that a step may use."""


class Measure(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Check an experiment, create its run directory, answer with :class:`Accepted`, and measure."""

    experiment: ExperimentRequest
    spec: RunSpec
    """The job to measure, for experiments that measure one."""
    home: str
    """Path of the folder in which the run directory is created."""


AnyRequest = Describe | Begin | Continue | FindBatch | Measure
"""Every request."""


class DeviceFact(msgspec.Struct, frozen=True, kw_only=True):
    """A device that torch can train on."""

    device: str
    """torch's name, such as `cuda:0`."""
    name: str
    """Product name."""
    memory_bytes: int | None = None
    """Total memory; None if torch does not report it."""
    uuid: str = ""
    """UUID as NVML writes it; empty if torch does not report it."""
    multiprocessors: int | None = None
    """Number of streaming multiprocessors; None if torch does not report it."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The engine has imported torch and waits for requests. It has not created a CUDA context."""

    torch_version: str
    cuda_version: str | None
    """CUDA version that torch was built for; None for a build without CUDA."""
    cudnn_version: int | None
    """cuDNN version as one number, such as 91002 for 9.10.2; None without cuDNN."""
    devices: tuple[DeviceFact, ...]
    """Devices to train on, the CPU first."""
    pid: int
    """Process id of the engine."""
    python: str = ""
    """Path of the Python interpreter."""
    python_version: str = ""
    hip_version: str | None = None
    """ROCm version that torch was built for; None for a build without ROCm."""
    architectures: tuple[str, ...] = ()
    """GPU architectures that torch has kernels for, such as `sm_90`."""
    accelerator: str = ""
    """torch's name for the type of accelerator available here, such as `cuda`; empty without one."""
    cuda_reason: str = ""
    """torch's message on why its CUDA build finds no device; empty if it finds one."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """What a run would do: the answer to :class:`Describe`."""

    device: str
    """torch's name of the device, such as `cuda:0`."""
    rows: int
    """Training rows."""
    test_rows: int
    validation_rows: int = 0
    features: int
    """Values per row."""
    outputs: int
    """Units of the last layer: classes, characters, or 1."""
    parameters: int
    """Number of the model's parameters."""
    steps: int
    """Steps of the whole run."""
    steps_per_epoch: int
    memory_bytes: int
    """Estimated memory of the run: weights, gradients, optimizer state, activations of a batch, weight copies, data."""
    available_bytes: int | None
    """Free memory of the device; None if unknown."""
    summary: ModelSummary | None = None
    """Summary of the model; None if unknown."""
    problem: str = ""
    """What the labels are: `classification`, `regression` or `multi-label`; empty for text and for a custom task."""
    notes: tuple[str, ...] = ()
    """Decisions made while the data were prepared, one sentence each."""
    columns: tuple[ColumnFact, ...] = ()
    """What the run does with each column of a table, and with arrays, images and texts; empty for other data."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The run directory exists and the work begins."""

    run: str
    """Path of the run directory."""
    plan: Plan | None = None
    """What the run does, without the summary of its model; None for an experiment."""


class BatchFound(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The answer to :class:`FindBatch`; all memory figures are measured."""

    batch_size: int
    """The largest batch that fits: a power of two, or all training rows. One full step was run with it."""
    rows: int
    """Training rows."""
    device: str
    """torch's name of the device, such as `cuda:0`."""
    row_bytes: int
    """Memory per additional row in the batch."""
    needed_bytes: int
    """Memory of a step with this batch: model, optimizer, activations, copies for saving."""
    budget_bytes: int
    """Memory limit of a step: `margin` × `available_bytes`."""
    available_bytes: int
    """Free memory before the first try."""
    margin: float
    """Share of the free memory that a step may use, from 0 to 1."""
    tries: tuple[tuple[int, int | None], ...]
    """Batch sizes tried, each with the bytes it needed; None if it did not fit."""
    ended: str
    """Reason why no larger batch was tried."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The request is not possible here; nothing was written."""

    message: str
    """Reason and remedy, in one sentence."""
    field: str = ""
    """Field of the spec that is wrong; empty if no single one is."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Progress of a slow request; its answer follows later."""

    message: str


AnyReply = Ready | Plan | Accepted | BatchFound | Refused | Progress
"""Every reply; :class:`Ready` comes first, without a request."""


decode_request: Callable[[bytes], AnyRequest] = msgspec.json.Decoder(AnyRequest).decode
decode_reply: Callable[[bytes], AnyReply] = msgspec.json.Decoder(AnyReply).decode
