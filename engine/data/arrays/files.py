"""Reading `.npz`, with rows and labels by name, and `.npy`, with the label in its last column. Never unpickles anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format
from numpy.lib.npyio import NpzFile

from epochtop.engine.data.arrays.features import Features, features_of
from epochtop.engine.data.arrays.names import Pair, pairs_of, rows_among
from epochtop.engine.data.arrays.targets import Targets, joined, label_array, targets_of
from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.facts import label_fact, rows_fact
from epochtop.engine.data.opening import explain_errors
from epochtop.engine.protocol.datasets import ColumnFact, Problem
from epochtop.engine.protocol.spec import Invalid

Array = npt.NDArray[Any]

_NPY, _ZIP = b"\x93NUMPY", b"PK"


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
    return _raw(path, [Pair("train", "x", "y")], {"x": table[:, :-1], "y": table[:, -1]}, problem)


def read_npz(path: Path, problem: Problem = "auto", model: str = "mlp") -> RawDataset:
    """Rows and labels for training, and for validation and test where there are some. Raises Invalid.

    See :mod:`epochtop.engine.data.arrays.names` for their names. `model` tells series from images where both are possible.
    """
    if _begins(path, _NPY):
        raise Invalid("dataset", f"{path} holds one array; read it as npy:{path}")
    with _archive(path, "dataset") as saved:
        members = list(saved.files)
        pairs = pairs_of(path, {name: _shape(saved, name) for name in members})
        names = [name for pair in pairs for name in (pair.x, pair.y)]
        arrays = {name: _member(path, saved, name) for name in names}
    unused = [name for name in members if name not in arrays]
    notes = (f"the arrays {', '.join(unused[:12])} of {path.name} are not used",) if unused else ()
    return _raw(path, pairs, arrays, problem, model, notes)


def read_rows(path: Path) -> Array:
    """New rows for a trained model: the array of a `.npy` file, or the only rows in a `.npz` file. Raises Invalid."""
    if _begins(path, _NPY):
        try:
            rows: Array = np.load(path, allow_pickle=False)
        except Exception as error:  # a damaged header raises whatever its parser raises
            raise Invalid("", f"{path} cannot be read as an array: {_line(error)}") from None
        return rows
    with _archive(path, "") as saved:
        return _member(path, saved, rows_among(path, {name: _shape(saved, name) for name in saved.files}))


@contextmanager
def _archive(path: Path, field: str) -> Iterator[NpzFile]:
    """The archive at `path`, which the setting `field` names. Raises Invalid if its directory is damaged."""
    with open(path, "rb") as file:
        try:
            saved = NpzFile(file, allow_pickle=False)
        except Exception as error:  # a damaged directory raises whatever the parser of zip files raises
            raise Invalid(field, f"{path} is not a NumPy archive: {_line(error)}; save it with numpy.savez") from None
        with saved:
            yield saved


def _begins(path: Path, magic: bytes) -> bool:
    with explain_errors(path, "file"), open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _shape(saved: NpzFile, name: str) -> str:
    """Type and shape of a member, from its header alone; empty if that is damaged."""
    assert saved.zip is not None
    member = next((each for each in saved.zip.namelist() if each.removesuffix(".npy") == name), name)
    try:
        with saved.zip.open(member) as file:
            version = npy_format.read_magic(file)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, _, dtype = read(file)
    except Exception:  # a damaged member raises whatever zip, zlib and the header's parser raise; reading it names it
        return ""
    return f"{dtype} {shape}"


def _member(path: Path, saved: Any, name: str) -> Array:
    try:
        array = saved[name]
    except Exception as error:  # a damaged file raises whatever zip, zlib and the header's parser raise
        raise Invalid("dataset", f"{path}, {name}: cannot be read as an array: {_line(error)}") from None
    if not isinstance(array, np.ndarray) or not array.ndim:
        raise Invalid("dataset", f"{path}, {name}: is not an array of rows")
    return array


def _line(error: Exception) -> str:
    if "allow_pickle" in str(error) or "pickled" in str(error):
        return "it holds Python objects, which epochtop never unpickles; save numbers or texts"
    return " ".join((str(error) or type(error).__name__).split())


def _raw(
    path: Path,
    pairs: list[Pair],
    arrays: dict[str, Array],
    problem: Problem,
    model: str = "mlp",
    notes: tuple[str, ...] = (),
) -> RawDataset:
    """The dataset in pairs of arrays: training rows first. Raises Invalid."""
    first = features_of(f"{path}: {pairs[0].x}", arrays[pairs[0].x], model)
    parts = [first, *(features_of(f"{path}: {pair.x}", arrays[pair.x], model, first) for pair in pairs[1:])]
    labels = [label_array(f"{path}: {pair.y}", arrays[pair.y]) for pair in pairs]
    _check_parts(path, pairs, parts, labels)
    coded = targets_of(joined(path, [pair.y for pair in pairs], labels), "y", problem)
    ends = np.cumsum([len(y) for y in labels])[:-1]
    rows = {pair.part: (part.x, y) for pair, part, y in zip(pairs, parts, np.split(coded.y, ends), strict=True)}
    kind, x = first.kind, first.x
    columns = () if kind == "image" else tuple(f"x{number}" for number in range(x.shape[-1]))
    return RawDataset(
        kind=kind,
        x=x,
        y=rows["train"][1],
        loss=coded.loss,
        classes=coded.classes,
        columns=columns,
        target="y",
        targets=coded.targets,
        test=rows.get("test"),
        validation=rows.get("validation"),
        notes=(*notes, *first.notes, *coded.notes),
        column_facts=(*_row_facts(pairs[0].x, first, columns), *_label_facts(pairs[0].y, coded)),
    )


def _row_facts(name: str, rows: Features, columns: tuple[str, ...]) -> list[ColumnFact]:
    if rows.kind == "table":
        return [ColumnFact(name=column, kind="number") for column in columns]
    return [rows_fact(name, rows.kind, rows.x.shape[1:])]


def _label_facts(name: str, targets: Targets) -> list[ColumnFact]:
    distinct = len(targets.classes) or None
    names = targets.targets or (name,)
    return [label_fact(each, targets.loss, targets.classes, distinct=distinct) for each in names]


def _check_parts(path: Path, pairs: list[Pair], parts: list[Features], labels: list[Array]) -> None:
    """Raise Invalid unless the parts have a label for every row and rows of one shape."""
    first = parts[0]
    for pair, part, y in zip(pairs, parts, labels, strict=True):
        if len(part.x) != len(y):
            raise Invalid("dataset", f"{path}: {pair.x} has {len(part.x)} rows, {pair.y} has {len(y)}")
        if part.kind == "image" and part.x.dtype != first.x.dtype:
            raise Invalid(
                "dataset",
                f"{path}: {pairs[0].x} has pixels of type {first.x.dtype}, {pair.x} of type {part.x.dtype}; give both the "
                "same range",
            )
        if part.kind != first.kind or part.x.shape[1:] != first.x.shape[1:]:
            raise Invalid(
                "dataset",
                f"{path}: rows of {pairs[0].x} have the shape {first.x.shape[1:]}, rows of {pair.x} {part.x.shape[1:]}",
            )
    if len(first.x) < 2:
        raise Invalid("dataset", f"{path} has {len(first.x)} rows; it needs at least two")
