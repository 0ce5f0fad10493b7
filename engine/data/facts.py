"""What is said about the rows and labels of data that are not a table of named columns. Must never look at values."""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.data.dataset import Kind, LossName
from epochtop.engine.protocol.datasets import ColumnFact


def label_fact(
    name: str, loss: LossName, classes: Sequence[str], missing: int = 0, distinct: int | None = None
) -> ColumnFact:
    """The fact of a label, or of one of several."""
    if loss == "binary_cross_entropy":
        treatment = "yes or no"
    else:
        treatment = f"{len(classes)} classes" if classes else "a number, standardized"
    return ColumnFact(name=name, kind="label", missing=missing, distinct=distinct, treatment=treatment)


def rows_fact(name: str, kind: Kind, shape: Sequence[int], missing: int = 0) -> ColumnFact:
    """The fact of rows that are images (channels, height, width) or series (time, features).

    `missing` counts rows that cannot be read.
    """
    if kind == "image":
        channels, height, width = shape
        colors = {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")
        treatment = f"{width}×{height} pixels, {colors}, each channel standardized"
    else:
        treatment = f"{shape[0]:,} time steps of {shape[1]:,} features"
    return ColumnFact(name=name, kind=kind, missing=missing, treatment=treatment)
