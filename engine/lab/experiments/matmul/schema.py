"""Fields and rows of the experiment `matmul`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.protocol.datasets import declared


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The largest size."""

    largest: Annotated[
        int, declared("largest size of the square matrices, if time and memory allow", "experiment", ge=32, le=65536)
    ] = 8192


class CpuFacts(Measurement, frozen=True, kw_only=True, tag="cpu"):
    """The CPU."""

    threads: int
    """Usable CPUs."""
    instructions: str | None
    """Vector instructions, separated by commas; None if they are unknown."""


class Limit(Measurement, frozen=True, kw_only=True, tag="limit"):
    """The first size that was left out."""

    device: str
    dtype: str
    size: int
    why: str
    """`time`, `memory` or `unsupported`."""
    expected_s: float | None = None
    """Expected time of a product that takes too long."""
    message: str | None = None
    """torch's message if it cannot multiply."""


class Product(Measurement, frozen=True, kw_only=True, tag="product"):
    """A product of two square matrices."""

    device: str
    dtype: str
    """`fp32`, `tf32`, `bf16` or `fp16`."""
    size: int
    threads: int | None = None
    """Threads on the CPU."""
    round: int
    repeats: int = 0
    seconds: float
    gflops: float
    """Speed in GFLOP/s."""


class BestShare(Measurement, frozen=True, kw_only=True, tag="share"):
    """The best product of one arithmetic as a percentage of the best of all."""

    device: str
    dtype: str
    round: int
    share: float
