"""Tables from Parquet files, read column by column, so that memory holds the table only once. Never imports torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.labels import labels_of
from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.tables.header import Header
from epochtop.engine.protocol.datasets import Problem
from epochtop.engine.protocol.spec import Invalid

_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


def read_parquet(path: Path, target: str, problem: Problem = "auto") -> RawDataset:
    """Read a table with the labels in column `target`. Raises Invalid.

    x is float32 if all features are stored as float32, else float64.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Invalid(
            "dataset", "parquet:PATH needs pyarrow; install it with: pip install 'epochtop[parquet]'"
        ) from None
    with explain_errors(path, "Parquet file"), open(path, "rb"):
        pass
    try:
        with ParquetFile(path) as file:
            return _table(path, file, target, problem)
    except (ArrowException, OSError) as error:
        raise Invalid("dataset", f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _table(path: Path, file: Any, target: str, problem: Problem) -> RawDataset:
    schema = file.schema_arrow
    Header(path, "", tuple(schema.names)).label_index(target)
    index = [name for name in _pandas_index(schema) if name != target]
    columns = tuple(name for name in schema.names if name != target and name not in index)
    if not columns:
        raise Invalid("dataset", f"{path} has no feature columns except its index; add one")
    _check_types(path, schema, columns)
    rows = file.metadata.num_rows
    if rows < 2:
        raise Invalid("dataset", f"{path} has {rows} rows; it needs at least two")
    single = all(str(schema.field(name).type) in ("float", "halffloat") for name in columns)
    x = np.empty((rows, len(columns)), dtype=np.float32 if single else np.float64)
    for number, name in enumerate(columns):
        x[:, number] = _numbers(path, file, schema, name)
    labels = labels_of(_labels(path, file, schema, target), target, problem)
    notes = tuple(f"column {name!r} is the index of a pandas table; it is left out of the features" for name in index)
    return RawDataset(
        kind="table",
        x=x,
        y=labels.y,
        loss=labels.loss,
        classes=labels.classes,
        columns=columns,
        target=target,
        notes=(*notes, *labels.notes),
    )


def _pandas_index(schema: Any) -> list[str]:
    """Names of the columns that hold the index of a pandas table, by its metadata or by the names that pandas gives."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        stored = []
    names = {name for name in stored if isinstance(name, str)} if isinstance(stored, list) else set()
    return [name for name in schema.names if name in names or _UNNAMED_INDEX.fullmatch(name)]


def _check_types(path: Path, schema: Any, columns: tuple[str, ...]) -> None:
    from pyarrow import types

    numeric = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    others = [
        f"{name!r} ({schema.field(name).type})"
        for name in columns
        if not any(is_(schema.field(name).type) for is_ in numeric)
    ]
    if others:
        which = f"column {others[0]} holds no numbers" if len(others) == 1 else f"{len(others)} columns hold no numbers"
        listing = "" if len(others) == 1 else f": {', '.join(others)}"
        raise Invalid("dataset", f"{path}: {which}{listing}; encode them as numbers or drop them")


def _column(path: Path, file: Any, name: str) -> Any:
    """A column. Raises Invalid if a value is missing."""
    column = file.read(columns=[name], use_threads=False).column(0)
    if column.null_count:
        row = column.is_null().to_numpy().argmax()
        raise Invalid(
            "dataset", f"{path}, row {row + 1}, column {name!r}: the value is missing; fill it in or drop the row"
        )
    return column


def _numbers(path: Path, file: Any, schema: Any, name: str) -> npt.NDArray[Any]:
    import pyarrow

    column = _column(path, file, name)
    if pyarrow.types.is_decimal(schema.field(name).type):
        column = column.cast(pyarrow.float64())
    values = np.asarray(column.to_numpy())
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise Invalid("dataset", f"{path}, row {row + 1}, column {name!r}: {values[row]} is not a finite number")
    return values


def _labels(path: Path, file: Any, schema: Any, target: str) -> Any:
    """Integers and floats as an array, anything else as texts, also decimals, which a float may not hold exactly."""
    from pyarrow import types

    kind = schema.field(target).type
    if types.is_integer(kind) or types.is_floating(kind):
        return _numbers(path, file, schema, target)
    values = _column(path, file, target).to_pylist()
    return [format(value, "f") if types.is_decimal(kind) else str(value) for value in values]
