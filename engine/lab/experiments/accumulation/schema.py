"""Fields, rows and variants of the experiment `accumulation`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared
from epochtop.engine.protocol.spec import RunSpec


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The number of batches that a step is split into."""

    pieces: Annotated[
        int, declared("batches that the rows of a step are split into", "experiment", "batches", ge=2, le=64)
    ] = 4


class Gradients(Measurement, frozen=True, kw_only=True, tag="gradients"):
    """The difference between the gradients of both variants."""

    device: str
    rows: int
    deviation: float | None
    """Fraction of the largest gradient of a parameter; None if it is not finite."""
    tolerance: float


def variants_of(spec: RunSpec, fields: msgspec.Struct) -> dict[str, dict[str, Any]]:
    """One large batch, and several small ones with the same rows."""
    pieces = fields.pieces if isinstance(fields, Fields) else Fields().pieces
    small = max(1, (spec.batch_size or 64) // pieces)
    return {
        f"1 × {small * pieces}": {"batch_size": small * pieces, "accumulate": 1},
        f"{pieces} × {small}": {"batch_size": small, "accumulate": pieces},
    }
