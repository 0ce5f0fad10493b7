"""Rows and variants of the experiment `checkpointing`."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Measurement

KEPT, AGAIN = "kept", "again"
VARIANTS = {KEPT: {"checkpoint_activations": False}, AGAIN: {"checkpoint_activations": True}}
"""Activations kept for the backward pass, and activations computed again."""


class Gradients(Measurement, frozen=True, kw_only=True, tag="gradients"):
    """The difference between the gradients of both variants."""

    device: str
    deviation: float | None
    """Fraction of the largest gradient of a parameter; None if it is not finite."""
