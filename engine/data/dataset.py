"""Rows ready to be trained on, and how they were made ready, so that new rows can be made ready the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy.typing as npt

LossName = Literal["cross_entropy", "binary_cross_entropy", "mean_squared_error", "next_character"]
Kind = Literal["table", "image", "text"]


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """How raw rows become a model's input, and its output becomes an answer; saved with every run."""

    kind: Kind
    loss: LossName
    classes: tuple[str, ...] = ()
    """Names of the classes, by label; empty for a regression."""
    columns: tuple[str, ...] = ()
    """Feature columns of a table, in the order of the model's inputs."""
    target: str = ""
    """Label column of a table."""
    scaling: Literal["minmax", "standard", "none"] = "none"
    offset: tuple[float, ...] = ()
    factor: tuple[float, ...] = ()
    """Of a table's features, in float64, as scikit-learn's scalers compute it: minmax is `raw * factor + offset`,
    standard `(raw - offset) / factor`; both empty where nothing is scaled. Other forms round differently."""
    rounded: bool = False
    """Whether the raw values were rounded to float32 before they were scaled: large files are read so."""
    target_center: float = 0.0
    target_spread: float = 1.0
    """Standardization of a regression's target: `(raw - center) / spread`."""
    image: tuple[int, int, int] | None = None
    """Channels, height and width of a row, where it is an image (a table's row may be one too: digits)."""
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    """Of the training images, a figure a channel, with pixels as 0 … 1; the model's first layer applies them."""
    vocabulary: str = ""
    """Characters of a text by their code."""


@dataclass(frozen=True)
class Rows:
    """Examples with their labels, on the host; `x` and `y` are of one length, which may be 0.

    table: x float32 (rows, features), scaled · image: x uint8 (rows, channels, height, width) · text: x uint8 or
    int32 (rows, context). y is int64 (rows,) for classes, float32 (rows,) for numbers and two classes with binary
    cross entropy, x's type (rows, context) for the next characters. Arrays may be memory-mapped files.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def bytes(self) -> int:
        """Memory of both."""
        return int(self.x.nbytes + self.y.nbytes)


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset cut into what is trained on, what the best weights are judged by, and what is tested on."""

    train: Rows
    validation: Rows
    """Empty unless `validation_fraction` is above 0."""
    test: Rows
    outputs: int
    """Units of the model's last layer: classes, characters, or 1."""
    preparation: Preparation
    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss; empty where all are 1."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the rows were read."""

    @property
    def bytes(self) -> int:
        """Memory of all rows."""
        return self.train.bytes + self.validation.bytes + self.test.bytes


OnProgress = Callable[[str], None]
"""Takes a line on how the reading of a dataset goes on."""


def no_progress(_: str) -> None:
    """A `OnProgress` for where nobody listens."""


@dataclass(frozen=True)
class RawDataset:
    """Examples with labels, on the host; arrays may be memory-mapped files.

    table: x float64 or float32 (rows, features) · image: x uint8 (rows, channels, height, width) · text: x and y uint8
    or int32 (rows, context). y of tables and images: int64 codes of `classes`, or floats (rows,).
    """

    kind: Kind
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    loss: LossName
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    target: str = ""
    image: tuple[int, int, int] | None = None
    test: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    """Test rows that the dataset brings itself, like `x` and `y`; None lets `test_fraction` decide."""
    vocabulary: str = ""
    notes: tuple[str, ...] = ()
