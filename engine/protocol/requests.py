"""The pipe between a viewer and its standby engine: what is asked, what is answered.

Imports msgspec and the standard library only, as :mod:`epochtop.engine.protocol.events` does: both sides read it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec

# --- what a model is made of ------------------------------------------------------------------------------


class LayerFact(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of a model, as one row of its table."""

    name: str
    """Where it is in the model: `blocks.0.conv1`."""
    kind: str
    output: tuple[int, ...] | None
    """Shape of what it gives, rows first; None where it is not called or gives no tensor."""
    parameters: int
    output_bytes: int | None


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A model's layers and what they need in float32 for a batch."""

    rows: int
    """Of the batch."""
    layers: tuple[LayerFact, ...]
    parameters: int
    trained: int
    """Parameters that are not frozen."""
    activation_bytes: int
    """Kept from the forward pass for the backward pass, the batch and the loss included."""


# --- requests and replies ---------------------------------------------------------------------------------


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Say what a run of `spec` would do; nothing is written."""

    spec: RunSpec


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Check `spec`, create its run directory under `home`, answer, and train."""

    spec: RunSpec
    home: str


class Continue(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Go on with a run that has ended before its last step, answer, and train."""

    run: str
    """Path of the run directory."""


class FindBatch(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Try which batch of `spec` is the largest that fits, answer, and end: what was tried has used up memory."""

    spec: RunSpec
    margin: float = 0.8
    """Share of the free memory that a step may take."""


class Measure(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Check an experiment, create its run directory under `home`, answer, and measure."""

    experiment: ExperimentRequest
    spec: RunSpec
    """The job to measure, where the experiment measures one."""
    home: str


AnyRequest = Describe | Begin | Continue | FindBatch | Measure


class DeviceFact(msgspec.Struct, frozen=True, kw_only=True):
    """A device torch can train on."""

    device: str
    name: str
    memory_bytes: int | None = None
    uuid: str = ""
    """As NVML writes it; empty where torch does not tell."""
    multiprocessors: int | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The engine has imported torch and waits. No CUDA context exists yet."""

    torch_version: str
    cuda_version: str | None
    cudnn_version: int | None
    devices: tuple[DeviceFact, ...]
    pid: int
    python: str = ""
    """Path of the interpreter."""
    python_version: str = ""
    hip_version: str | None = None
    """The ROCm that torch was built for."""
    architectures: tuple[str, ...] = ()
    """GPU architectures that torch has kernels for, as `sm_90`."""
    accelerator: str = ""
    """torch's name for the kind of accelerator it can use here; empty without one."""
    cuda_reason: str = ""
    """Why a torch built for CUDA finds no device, in torch's words."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """What a run would do: the answer to :class:`Describe`."""

    device: str
    rows: int
    test_rows: int
    validation_rows: int = 0
    features: int
    outputs: int
    parameters: int
    steps: int
    steps_per_epoch: int
    memory_bytes: int
    """Weights, gradients, optimizer state, activations of a batch, copies of weights that are kept, and data."""
    available_bytes: int | None
    summary: ModelSummary | None = None
    """The model's layers."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The run directory exists and training begins."""

    run: str
    """Path of the run directory."""


class BatchFound(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The answer to :class:`FindBatch`; every figure of memory is measured."""

    batch_size: int
    """A power of two, or all training rows. A full step was taken with it."""
    rows: int
    """Training rows."""
    device: str
    row_bytes: int
    """Memory that one more row in the batch takes."""
    needed_bytes: int
    """Of a step with this batch, beyond what was in use before: model, optimizer, activations, copies to save."""
    budget_bytes: int
    """What a step may take: `margin` of `available_bytes`."""
    available_bytes: int
    """Free before the first try."""
    margin: float
    tries: tuple[tuple[int, int | None], ...]
    """Batches that were tried, with what they needed; None for what did not fit."""
    ended: str
    """Why no larger batch was tried."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The spec cannot be trained here; nothing was written."""

    message: str
    field: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """What a request that takes long is doing; the answer is still to come."""

    message: str


AnyReply = Ready | Plan | Accepted | BatchFound | Refused | Progress


decode_request: Callable[[bytes], AnyRequest] = msgspec.json.Decoder(AnyRequest).decode
decode_reply: Callable[[bytes], AnyReply] = msgspec.json.Decoder(AnyReply).decode
