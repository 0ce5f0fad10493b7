"""The datasets that a run can use, and its settings about data: the first part of its spec.

:class:`~epochtop.engine.protocol.spec.RunSpec` adds the other settings. Imports msgspec and the standard library only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

BUILT_IN = ("iris", "wine", "breast_cancer", "digits", "diabetes", "sums")
"""Datasets that need no file and no network."""
CACHED = ("california_housing",)
"""Datasets in the cache of scikit-learn, which downloads them on request."""
GENERATED = ("moons", "circles", "blobs", "spirals", "regression")
"""Datasets drawn by a generator; `samples` and `noise` apply to them."""
IMAGES = ("mnist", "fashion_mnist", "cifar10")
"""Image datasets fetched from openml.org on first use."""
TABLES = ("csv", "parquet", "feather", "jsonl", "arff", "sqlite")
"""Formats of tables in the user's files."""
SOURCES = (*TABLES, "npz", "npy", "images", "text", "hf", "openml")
"""Kinds of datasets written as `KIND:WHERE`."""
FILES = (*TABLES, "npz", "npy", "images", "text", "hf")
"""Kinds of datasets read from the user's files."""
WITH_ENCODING = ("csv", "jsonl", "arff")
"""Formats of tables in text (`encoding`)."""
WRITTEN = tuple(f"{kind}:{'FOLDER' if kind in ('images', 'hf') else 'PATH'}" for kind in FILES)
"""How datasets of the user's files are written."""
WITH_TARGET = (*TABLES, "openml", "hf")
"""Kinds of datasets with a label column to choose (`target`)."""

WITH_PROBLEM = (*TABLES, "npz", "npy", "hf", "openml")
"""Kinds of datasets whose labels may be classes or numbers (`problem`)."""
LABELED_TEXTS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
"""Endings of tables of texts with labels; `text:` reads any other file as one text."""
Problem = Literal["auto", "classification", "regression", "multi-label"]
"""What is learned: a class, one number or several, or several yes-or-no labels; `auto` decides from the labels."""
Missing = Literal["fill", "drop", "refuse"]
"""What happens to missing values of a table."""
Header = Literal["auto", "yes", "no"]
"""Whether the first row of a table names the columns; `auto` decides from the file."""


def is_labeled_text(dataset: str) -> bool:
    """Whether `dataset` is a table of texts with labels rather than one text."""
    kind, _, where = dataset.partition(":")
    return kind == "text" and where.lower().endswith(LABELED_TEXTS)


def takes_target(dataset: str) -> bool:
    """Whether `dataset` has columns of which one can be the label."""
    return _kind(dataset) in WITH_TARGET or is_labeled_text(dataset)


def takes_problem(dataset: str) -> bool:
    """Whether the labels of `dataset` may be classes or numbers."""
    return _kind(dataset) in WITH_PROBLEM or is_labeled_text(dataset)


def models_of(dataset: str) -> tuple[str, ...]:
    """The models that may read `dataset`; which of them fit is known once it is read."""
    if _kind(dataset) == "text":
        return ("mlp", "transformer") if is_labeled_text(dataset) else ("transformer",)
    over_time = {"npz": ("lstm", "transformer"), "hf": ("transformer",)}
    return ("mlp", "cnn", "resnet", *over_time.get(_kind(dataset), ()))


def _kind(dataset: str) -> str:
    kind, colon, _ = dataset.partition(":")
    return kind if colon else ""


class ColumnFact(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does with one column of a table, or with an array, images or texts and their labels."""

    name: str
    kind: str
    """`number`, `category`, `time`, `text`, `identifier`, `image`, `series`, `label`, or `skipped` if the settings leave the
    column out."""
    missing: int = 0
    """Rows without a value."""
    distinct: int | None = None
    """Number of distinct values; None if they were not counted."""
    treatment: str = ""
    """What the model gets, for people."""


def declared(description: str, group: str, unit: str = "", expects: str = "", **bounds: Any) -> Meta:
    """The annotation of a field.

    `group` is its section in the form; `expects` describes a valid text where the type alone does not; `bounds` are
    msgspec's (`ge`, `lt`, `pattern`, ...).
    """
    return Meta(description=description, extra={"group": group, "unit": unit, "expects": expects}, **bounds)


class DataSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a run about its data."""

    dataset: Annotated[
        str,
        declared(
            "iris, wine, breast_cancer, digits, diabetes (scikit-learn); sums, moons, circles, blobs, spirals, regression "
            "(generated); california_housing (scikit-learn's cache); mnist, fashion_mnist, cifar10, openml:NAME or openml:ID "
            "(downloaded once, then cached); csv:PATH, parquet:PATH, feather:PATH, jsonl:PATH, arff:PATH, sqlite:PATH?table=NAME, npz:PATH, "
            "npy:PATH, images:FOLDER, text:PATH, hf:FOLDER (Hugging Face datasets)",
            "data",
            expects=f"{', '.join((*BUILT_IN, *GENERATED, *CACHED, *IMAGES))}, {', '.join(WRITTEN)} or openml:NAME",
            pattern=rf"^({'|'.join((*BUILT_IN, *GENERATED, *CACHED, *IMAGES))}|({'|'.join(SOURCES)}):.+)$",
        ),
    ] = "iris"
    target: Annotated[
        str,
        declared(
            "label column of a table: its name, or its position (#3, #-1, last); several are separated by commas",
            "data",
        ),
    ] = ""
    problem: Annotated[
        Problem,
        declared(
            "what to predict: a class (classification), a number (regression) or several yes-or-no labels (multi-label); "
            "auto takes text and a few whole numbers as classes (tables, npz, npy)",
            "data",
        ),
    ] = "auto"
    columns: Annotated[
        str,
        declared(
            "feature columns of a table, by name or pattern, separated by commas; ! leaves columns out: age,fare,c* or "
            "!Name,!Ticket; empty takes all",
            "data",
        ),
    ] = ""
    kinds: Annotated[
        str,
        declared(
            "kinds of columns that epochtop should not infer: NAME=KIND, separated by commas; KIND is number, category, "
            "time or skip",
            "data",
            expects="NAME=KIND separated by commas, for example age=number,zip=category",
            pattern=r"^$|^ *[^=]+= *(number|category|time|skip) *(,[^=]+= *(number|category|time|skip) *)*$",
        ),
    ] = ""
    missing: Annotated[
        Missing,
        declared(
            "missing values of a table: fill them (median or most frequent value), drop their rows, or refuse the table",
            "data",
        ),
    ] = "fill"
    header: Annotated[
        Header, declared("whether the first row of a CSV file names the columns; auto decides from the file", "data")
    ] = "auto"
    encoding: Annotated[
        str,
        declared(
            "encoding of a CSV, JSON lines or ARFF file, such as latin-1, utf-16 or cp1251; auto takes UTF-8 or what the file "
            "says, else Windows-1252",
            "data",
            expects="auto or an encoding that Python knows, such as utf-8, latin-1, utf-16 or cp1251",
            pattern=r"^[A-Za-z0-9_.:-]+$",
        ),
    ] = "auto"
    samples: Annotated[int, declared("number of rows in a generated dataset", "data", "rows", ge=10, le=10**8)] = 1000
    noise: Annotated[float, declared("noise in a generated dataset", "data", ge=0, le=100)] = 0.2
    test_fraction: Annotated[
        float,
        declared("share of the rows held out for testing; 0 trains on all rows", "data", ge=0, lt=1),
    ] = 0.2
    validation_fraction: Annotated[
        float,
        declared(
            "share of the remaining rows held out for validation: they choose the best weights and drive plateau and "
            "patience; 0 uses the test rows instead",
            "data",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    scaling: Annotated[
        Literal["minmax", "standard", "none"],
        declared("feature scaling, fitted on the training rows only", "data"),
    ] = "minmax"
    class_weights: Annotated[bool, declared("weight each class by its inverse frequency in the loss", "data")] = False
    image_size: Annotated[
        int,
        declared(
            "height and width to which the images of a folder are resized; 0 takes the size of most of them",
            "data",
            "pixels",
            ge=0,
            le=4096,
        ),
    ] = 0
    skip_broken: Annotated[
        bool, declared("leave out images that cannot be read, instead of refusing the folder", "data")
    ] = False
    placement: Annotated[
        Literal["auto", "device", "stream"],
        declared(
            "where the rows are stored: all on the device, or streamed from the host one batch ahead; "
            "auto keeps them on the device if they need at most half of its free memory",
            "data",
        ),
    ] = "auto"
    workers: Annotated[
        int,
        declared(
            "processes that load the Dataset of a custom task; 0 loads it in the training process. For a folder of images: "
            "processes that decode them; 0 takes one per CPU",
            "data",
            ge=0,
            le=256,
        ),
    ] = 0

    @property
    def source(self) -> str:
        """Kind of a `KIND:WHERE` dataset, such as `csv` or `openml`; empty for the other datasets."""
        kind, colon, _ = self.dataset.partition(":")
        return kind if colon else ""
