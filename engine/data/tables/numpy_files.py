"""Arrays saved by NumPy: `.npz` with x and y, or `.npy` with the label in its last column. Never unpickles anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.labels import labels_of
from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.scaling import ALL_ROWS, blocks
from epochtop.engine.protocol.datasets import Problem
from epochtop.engine.protocol.spec import Invalid

Array = npt.NDArray[Any]

_NPY, _ZIP = b"\x93NUMPY", b"PK"
_TRAIN = ("x", "y"), ("x_train", "y_train")
_VALIDATION = ("x_val", "y_val"), ("x_valid", "y_valid"), ("x_validation", "y_validation")
_TEST = (("x_test", "y_test"),)
Pair = tuple[Array, Array]
"""Rows and their labels, of equal length."""


def read_npy(path: Path, problem: Problem = "auto") -> RawDataset:
    """A memory-mapped table (rows, features + 1) with the label in its last column. Raises Invalid."""
    if _begins(path, _ZIP):
        raise Invalid("dataset", f"{path} holds several arrays; read it as npz:{path}")
    if not _begins(path, _NPY):
        raise Invalid("dataset", f"{path} is not a NumPy array; save it with numpy.save")
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises whatever its parser raises
        raise Invalid("dataset", f"{path} cannot be read as an array: {_line(error)}") from None
    if table.ndim != 2 or table.shape[1] < 2:
        raise Invalid(
            "dataset", f"{path} has the shape {table.shape}; it must be (rows, features + 1), with the label last"
        )
    return _raw(path, {"x": table[:, :-1], "y": table[:, -1]}, problem)


def read_npz(path: Path, problem: Problem = "auto") -> RawDataset:
    """Arrays x and y, or x_train and y_train; x_test, y_test, x_val and y_val, where there are some. Raises Invalid."""
    if _begins(path, _NPY):
        raise Invalid("dataset", f"{path} holds one array; read it as npy:{path}")
    try:
        with open(path, "rb") as file, NpzFile(file, allow_pickle=False) as saved:
            members = list(saved.files)
            arrays = {name: _member(path, saved, name) for name in _names(path, members)}
    except BadZipFile as error:
        raise Invalid("dataset", f"{path} is not a NumPy archive: {_line(error)}; save it with numpy.savez") from None
    unused = [name for name in members if name not in arrays]
    notes = (f"the arrays {', '.join(unused[:12])} of {path.name} are not used",) if unused else ()
    return _raw(path, arrays, problem, notes)


def _names(path: Path, members: list[str]) -> tuple[str, ...]:
    """Names of the arrays to read: pairs for training, validation and test."""
    pairs = [
        next((pair for pair in choices if set(pair) <= set(members)), ()) for choices in (_TRAIN, _VALIDATION, _TEST)
    ]
    if not pairs[0]:
        raise Invalid(
            "dataset",
            f"{path} holds {', '.join(members[:12]) or 'nothing'}; it needs x and y, or x_train, y_train, x_test and y_test",
        )
    return tuple(name for pair in pairs for name in pair)


def _begins(path: Path, magic: bytes) -> bool:
    with explain_errors(path, "file"), open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _member(path: Path, saved: Any, name: str) -> Array:
    try:
        array = saved[name]
    except Exception as error:  # a damaged file raises whatever zip, zlib and the header's parser raise
        raise Invalid("dataset", f"{path}, {name}: cannot be read as an array: {_line(error)}") from None
    if not isinstance(array, np.ndarray):
        raise Invalid("dataset", f"{path}, {name}: is not an array")
    return array


def _line(error: Exception) -> str:
    if "allow_pickle" in str(error) or "pickled" in str(error):
        return "it holds Python objects, which epochtop never unpickles; save numbers or texts"
    return " ".join((str(error) or type(error).__name__).split())


def _raw(path: Path, arrays: dict[str, Array], problem: Problem, notes: tuple[str, ...] = ()) -> RawDataset:
    """The dataset in pairs of arrays: training rows first. Raises Invalid."""
    names = tuple(arrays)
    parts = [
        (x, _features(path, arrays[x]), _column(path, arrays[y])) for x, y in zip(names[::2], names[1::2], strict=True)
    ]
    _check_parts(path, parts)
    x = parts[0][1]
    coded = labels_of(_joined(path, names[1::2], [y for _, _, y in parts]), "y", problem)
    ends = np.cumsum([len(y) for _, _, y in parts])[:-1]
    pairs = {name: (part, labels) for (name, part, _), labels in zip(parts, np.split(coded.y, ends), strict=True)}
    image = x.ndim == 4
    return RawDataset(
        kind="image" if image else "table",
        x=x,
        y=pairs[names[0]][1],
        loss=coded.loss,
        classes=coded.classes,
        columns=() if image else tuple(f"x{number}" for number in range(x.shape[1])),
        target="y",
        test=pairs.get("x_test"),
        validation=next((pair for name, pair in pairs.items() if name in dict(_VALIDATION)), None),
        notes=(*notes, *coded.notes),
    )


def _check_parts(path: Path, parts: list[tuple[str, Array, Array]]) -> None:
    """Raise Invalid unless the parts, as (name of x, x, y), have a label for every row and rows of one shape."""
    first, x, _ = parts[0]
    for name, rows, labels in parts:
        if len(rows) != len(labels):
            y = f"y{name[1:]}"
            raise Invalid("dataset", f"{path}: {name} has {len(rows)} rows, {y} has {len(labels)}")
        if rows.shape[1:] != x.shape[1:]:
            raise Invalid(
                "dataset",
                f"{path}: rows of {first} have the shape {x.shape[1:]}, rows of {name} {rows.shape[1:]}",
            )
    if len(x) < 2:
        raise Invalid("dataset", f"{path} has {len(x)} rows; it needs at least two")


def _joined(path: Path, names: tuple[str, ...], labels: list[Array]) -> Array:
    """The labels of all parts, so that a class has one code in all of them. Raises Invalid."""
    y = labels[0]
    for name, other in zip(names[1:], labels[1:], strict=True):
        if _sort_of_labels(y) != _sort_of_labels(other):
            raise Invalid(
                "dataset",
                f"{path}: {names[0]} is {_type_and_shape(y)}, {name} is {_type_and_shape(other)}; they must have the same "
                "type and shape",
            )
    return y if len(labels) == 1 else _concatenated(labels)


def _sort_of_labels(y: Array) -> str:
    """Whether labels are text, booleans or numbers."""
    return {"U": "text", "b": "booleans"}.get(y.dtype.kind, "numbers")


def _concatenated(labels: list[Array]) -> Array:
    """The labels in one array. NumPy joins int64 and uint64 to float64, which merges large numbers, so these become text."""
    joined = np.concatenate(labels)
    if joined.dtype.kind == "f" and all(y.dtype.kind in "iu" for y in labels):
        return np.concatenate([y.astype(str) for y in labels])
    return joined


def _type_and_shape(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def _column(path: Path, y: Array) -> Array:
    """Labels as (rows,): numbers, texts or booleans."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "biufUS":
        raise Invalid(
            "dataset", f"{path}: y is {_type_and_shape(y)}; it must hold numbers or texts in the shape (rows,)"
        )
    if y.dtype.kind == "S":
        try:
            return np.char.decode(y, "utf-8")
        except UnicodeDecodeError:
            raise Invalid("dataset", f"{path}: y holds bytes that are not UTF-8") from None
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise Invalid("dataset", f"{path}, row {int(np.flatnonzero(~np.isfinite(y))[0])} of y: is not a finite number")
    return y


def _features(path: Path, x: Array) -> Array:
    """Features: a table of numbers (rows, features), or images of bytes (rows, channels, height, width)."""
    if x.dtype == np.uint8 and x.ndim in (3, 4) and 0 not in x.shape:
        return _channels_first(path, x if x.ndim == 4 else x[:, None])
    if x.ndim != 2 or x.dtype.kind not in "biuf" or not x.shape[1]:
        raise Invalid(
            "dataset",
            f"{path}: x is {_type_and_shape(x)}; it must hold numbers of the shape (rows, features), or images as "
            "uint8 (rows, channels, height, width)",
        )
    if x.dtype.kind == "f":
        _check_finite(path, x)
    small = x.dtype.kind in "iu" and x.dtype.itemsize <= 2  # float32 holds every such number
    return x if small or x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def _channels_first(path: Path, x: Array) -> Array:
    if x.shape[1] in (1, 3):
        return x
    if x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    raise Invalid(
        "dataset", f"{path}: x is {_type_and_shape(x)}; images need 1 or 3 channels, in the second or last dimension"
    )


def _check_finite(path: Path, x: Array) -> None:
    start = 0
    for block in blocks(x, ALL_ROWS):
        finite = np.isfinite(block)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise Invalid(
                "dataset",
                f"{path}, row {start + row}, column {column} of x: {block[row, column]} is not a finite number",
            )
        start += len(block)
