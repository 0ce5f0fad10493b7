"""Fields, rows and variants of the experiment `precision`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared

FULL = "fp32"
VARIANTS = {name: {"precision": name} for name in (FULL, "tf32", "bf16", "fp16")}
SPEED_UP, MEMORY_SAVED = (1.5, 2.0), 0.4
"""The published claim: times as fast, and fraction of memory saved."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The length of the training before accuracies are compared."""

    trained: Annotated[
        int,
        declared(
            "epochs of training before accuracies are compared, if time allows", "experiment", "epochs", ge=1, le=10_000
        ),
    ] = 10


class Accuracy(Measurement, frozen=True, kw_only=True, tag="accuracy"):
    """The evaluation of one precision after the same training as the others. The round is the seed."""

    device: str
    round: int
    steps: int
    epochs: float
    way: str
    """The precision."""
    metric: str
    """The headline metric."""
    score: float | None
    """Its value; None if it is not finite."""
    loss: float | None
    """The loss of the held-out rows; None if it is not finite."""
