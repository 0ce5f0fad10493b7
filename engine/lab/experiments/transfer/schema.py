"""Fields and rows of the experiment `transfer`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared

LARGEST_MIB = 1 << 10


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The largest size."""

    largest_mib: Annotated[
        int, declared("largest copy, if time and memory allow", "experiment", "MiB", ge=1, le=1 << 16)
    ] = LARGEST_MIB


class CopyTime(Measurement, frozen=True, kw_only=True, tag="copy"):
    """A copy."""

    direction: str
    """`to device`, `to host` or `in host`."""
    way: str
    """How it is copied: `pageable`, `pinned`, `non-blocking`, `pinned anew`, `reused` or `fresh`."""
    device: str
    bytes: int
    round: int
    repeats: int = 0
    seconds: float
    rate: float
    """Bytes per second."""


class PinTime(Measurement, frozen=True, kw_only=True, tag="pin"):
    """Pinning memory in place, without a copy."""

    way: str
    """Always `pinning`."""
    device: str
    bytes: int
    round: int
    repeats: int = 0
    seconds: float
    rate: float
    """Bytes per second."""


class Limit(Measurement, frozen=True, kw_only=True, tag="limit"):
    """The first size that was left out."""

    direction: str | None = None
    way: str
    device: str
    bytes: int
    why: str
    """`time`, or an error message."""
