"""Datasets in their three forms: as read, as rows to train on, and how the rows were prepared.

Types only; must never read a file or import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy.typing as npt

from epochtop.engine.hardware.memory_maps import is_mapped_file
from epochtop.engine.protocol.datasets import ColumnFact, Missing, Problem

LossName = Literal["cross_entropy", "binary_cross_entropy", "mean_squared_error", "next_character"]
"""Loss that suits a dataset's labels."""
Kind = Literal["table", "image", "series", "text", "document"]
"""What a row is: a window of characters is a `text`, a text with a label is a `document`."""


TimePart = Literal["days", "year", "month", "weekday", "hour"]
"""A part of a time: days since the first, year, month and weekday from 0, hour with its fraction."""


class ColumnEncoding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one column of a table becomes inputs of the model. The raw value of a row is a number, NaN if it is missing."""

    kind: Literal["number", "category", "time"] = "number"
    fill: float = 0.0
    """What replaces a missing value: a number, the index of a category, or seconds since 1970."""
    indicator: bool = False
    """Whether one more input, the last of the column, is 1 where the value is missing."""
    categories: tuple[str, ...] = ()
    """Texts of the training rows; the raw value is an index into them, -1 for any other text."""
    embedding: int = 0
    """Size of the vector that the mlp learns for each category; the input is then 1 + the raw value. 0 gives one input per
    category, which is 1 for the category of the row."""
    parts: tuple[TimePart, ...] = ()
    """Inputs of a time; month, weekday and hour are a sine and a cosine each. The raw value is seconds since 1970."""
    origin: float = 0.0
    """Day 0 of a time, in seconds since 1970."""
    time_format: str = ""
    """How texts of the column are read: `iso` or a format of Python's strptime; empty if they were times already."""

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        if self.kind == "number":
            return 1 + self.indicator
        if self.kind == "time":
            return sum(2 if part in ("month", "weekday", "hour") else 1 for part in self.parts) + self.indicator
        return (1 if self.embedding else len(self.categories)) + self.indicator


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """How raw rows become the model's input, and its output a prediction; saved with every run (preparation.json)."""

    kind: Kind
    loss: LossName
    classes: tuple[str, ...] = ()
    """Names of the classes, by label; empty for a regression."""
    columns: tuple[str, ...] = ()
    """Feature columns of a table, in order. Each is one input of the model unless `encodings` says otherwise."""
    encodings: tuple[ColumnEncoding, ...] = ()
    """One per column of `columns`; empty for tables of earlier versions, whose columns are numbers without missing values."""
    missing: Missing = "refuse"
    """What happened to rows with missing values; new rows are treated in the same way."""
    target: str = ""
    """Label column of a table; empty for other kinds."""
    targets: tuple[str, ...] = ()
    """Names of several targets: numbers (mean_squared_error), or labels of which a row has any number
    (binary_cross_entropy); empty for a single target."""
    scaling: Literal["minmax", "standard", "none"] = "none"
    offset: tuple[float, ...] = ()
    factor: tuple[float, ...] = ()
    """Scaling of each input of a table, computed in float64 as scikit-learn does: `raw * factor + offset` for minmax,
    `(raw - offset) / factor` for standard; both empty if nothing is scaled. Other formulas round differently."""
    rounded: bool = False
    """Whether raw values are rounded to float32 before scaling, as in large files."""
    target_center: float = 0.0
    target_spread: float = 1.0
    """Standardization of a regression target: `(raw - center) / spread`."""
    target_centers: tuple[float, ...] = ()
    target_spreads: tuple[float, ...] = ()
    """The same for several targets, one number each."""
    image: tuple[int, int, int] | None = None
    """Channels, height and width of a row that is an image, also in a table (digits); None for other rows."""
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    """Mean and standard deviation of each channel in the training images, with pixels from 0 to 1; the model's first
    layer applies them."""
    vocabulary: str = ""
    """Characters of a text, in the order of their codes."""
    pixel_max: float = 255.0
    """Value that a pixel is divided by first: 255 for bytes, 1 for floating-point images."""
    series: tuple[int, int] | None = None
    """Time steps and features of a row that is a series; `offset` and `factor` are per feature."""
    ngrams: int = 0
    """Longest sequence of words of a document that has a code: 1 for words, 2 for words and pairs; 0 for other kinds."""
    length: int = 0
    """Codes per document."""

    @property
    def inputs(self) -> int:
        """Inputs per row of a table; 0 if they are unknown."""
        if self.encodings:
            return sum(encoding.inputs for encoding in self.encodings)
        return len(self.columns) or len(self.offset)

    @property
    def outputs(self) -> int:
        """Units of the model's last layer: classes, characters, targets, or 1."""
        sizes = {"cross_entropy": len(self.classes), "next_character": len(self.vocabulary)}
        return sizes.get(self.loss, len(self.targets) or 1)

    @property
    def problem(self) -> Problem:
        """What was learned; `auto` for the next character of a text."""
        if self.loss == "next_character":
            return "auto"
        if self.targets and self.loss == "binary_cross_entropy":
            return "multi-label"
        return "classification" if self.classes else "regression"


@dataclass(frozen=True)
class Rows:
    """Rows of data with their labels, on the host; `x` and `y` have the same length, which may be 0.

    table: x float32 (rows, features), scaled · image: x uint8 or float32 (rows, channels, height, width) · series: x float32
    (rows, time, features), scaled · text: x uint8 or int32 (rows, context) · document: x uint16 (rows, length). y is int64
    (rows,) for classes, float32 (rows,) for numbers and for binary cross entropy, float32 (rows, targets) for several
    targets, and (rows, context) in x's type for the next characters. Rows of a task may have other types, of which a step
    gets the input type (:mod:`epochtop.engine.device.row_types`). Arrays may be memory-mapped files.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def bytes(self) -> int:
        """Size of both arrays in bytes."""
        return int(self.x.nbytes + self.y.nbytes)

    @property
    def memory_bytes(self) -> int:
        """Size of the arrays in memory, in bytes: without those that are memory-mapped files."""
        return sum(int(array.nbytes) for array in (self.x, self.y) if not is_mapped_file(array))


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset split into training, validation and test rows, scaled and ready to train on."""

    train: Rows
    validation: Rows
    """Empty unless `validation_fraction` is above 0 or the dataset has fixed validation rows."""
    test: Rows
    outputs: int
    """Units of the model's last layer: classes, characters, targets, or 1."""
    preparation: Preparation
    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss; empty if all are 1."""
    notes: tuple[str, ...] = ()
    """Facts about reading and splitting that the user should know, one sentence each."""
    columns: tuple[ColumnFact, ...] = ()
    """What was done to each column of a table, or to arrays, images and texts; empty for datasets that are not files."""

    @property
    def bytes(self) -> int:
        """Size of all rows in bytes."""
        return self.train.bytes + self.validation.bytes + self.test.bytes


OnProgress = Callable[[str], None]
"""A function that receives one line of progress while a dataset is read."""


def no_progress(_: str) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class RawDataset:
    """A dataset as it was read, before splitting and scaling, on the host; arrays may be memory-mapped files.

    table: x float64, float32 or an integer of at most 16 bits (rows, features) · image: x uint8 or float32 (rows, channels,
    height, width) · series: the types of a table (rows, time, features) · text: x and y uint8 or int32 (rows, context) ·
    document: x uint16 (rows, length). y of other kinds than text: int64 (rows,), codes of `classes`; floats (rows,); or
    float64 (rows, targets).
    """

    kind: Kind
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    loss: LossName
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    target: str = ""
    targets: tuple[str, ...] = ()
    """Names of several targets, which are the columns of `y`; empty for a single target."""
    image: tuple[int, int, int] | None = None
    test: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    """Fixed test rows of the dataset, in the form of `x` and `y`; None if `test_fraction` decides."""
    validation: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    """Fixed validation rows, in the form of `x` and `y`; None if `validation_fraction` decides."""
    vocabulary: str = ""
    ngrams: int = 0
    """Longest sequence of words of a document that has a code."""
    notes: tuple[str, ...] = ()
    encodings: tuple[ColumnEncoding, ...] = ()
    """Kinds of the columns of a table, before anything is fitted: `categories` are those of all rows. Empty if all columns
    are numbers without missing values."""
    is_rounded: bool = False
    """Whether the numbers of a table were rounded to float32, although `x` is float64."""
    column_facts: tuple[ColumnFact, ...] = ()
    """The columns of a table, of the label too, before anything is fitted; one fact each of images, series, texts and labels."""
