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
from epochtop.engine.protocol.spec import Invalid

Array = npt.NDArray[Any]

_NPY, _ZIP = b"\x93NUMPY", b"PK"
_SAVED = ("x", "y"), ("x_train", "y_train", "x_test", "y_test")


def read_npy(path: Path) -> RawDataset:
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
    return _raw(path, table[:, :-1], table[:, -1])


def read_npz(path: Path) -> RawDataset:
    """Arrays x and y, or x_train, y_train, x_test and y_test with a fixed test split. Raises Invalid."""
    if _begins(path, _NPY):
        raise Invalid("dataset", f"{path} holds one array; read it as npy:{path}")
    try:
        with open(path, "rb") as file, NpzFile(file, allow_pickle=False) as saved:
            arrays = [_member(path, saved, name) for name in _names(path, saved.files)]
    except BadZipFile as error:
        raise Invalid("dataset", f"{path} is not a NumPy archive: {_line(error)}; save it with numpy.savez") from None
    return _raw(path, arrays[0], arrays[1], *arrays[2:])


def _names(path: Path, members: list[str]) -> tuple[str, ...]:
    names = next((names for names in _SAVED if set(names) <= set(members)), None)
    if names is None:
        raise Invalid(
            "dataset",
            f"{path} holds {', '.join(members[:12]) or 'nothing'}; it needs x and y, or x_train, y_train, x_test and y_test",
        )
    return names


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


def _raw(path: Path, x: Array, y: Array, x_test: Array | None = None, y_test: Array | None = None) -> RawDataset:
    labels = y if y_test is None else _joined(path, y, y_test)
    x, labels = _features(path, x), _column(path, labels)
    test = None if x_test is None else _features(path, x_test)
    rows = len(x) + (0 if test is None else len(test))
    if rows != len(labels):
        raise Invalid("dataset", f"{path}: x has {rows} rows, y has {len(labels)}")
    if len(x) < 2:
        raise Invalid("dataset", f"{path} has {len(x)} rows; it needs at least two")
    if test is not None and test.shape[1:] != x.shape[1:]:
        raise Invalid(
            "dataset", f"{path}: rows of x_train have the shape {x.shape[1:]}, rows of x_test {test.shape[1:]}"
        )
    coded = labels_of(labels, "y")
    image = x.ndim == 4
    return RawDataset(
        kind="image" if image else "table",
        x=x,
        y=coded.y[: len(x)],
        loss=coded.loss,
        classes=coded.classes,
        columns=() if image else tuple(f"x{number}" for number in range(x.shape[1])),
        target="y",
        test=None if test is None else (test, coded.y[len(x) :]),
    )


def _joined(path: Path, y: Array, y_test: Array) -> Array:
    if y.shape[1:] != y_test.shape[1:] or (y.dtype.kind in "US") != (y_test.dtype.kind in "US"):
        raise Invalid(
            "dataset",
            f"{path}: y_train is {_type_and_shape(y)}, y_test is {_type_and_shape(y_test)}; they must have the same type and shape",
        )
    try:
        return np.concatenate((y, y_test))
    except (TypeError, ValueError):
        raise Invalid(
            "dataset",
            f"{path}: y_train is {_type_and_shape(y)}, y_test is {_type_and_shape(y_test)}; they must have the same type and shape",
        ) from None


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
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


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
