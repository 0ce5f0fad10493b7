"""Tables from Parquet files, read a column at a time, so that a table is in memory once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.labels import labels_of
from epochtop.engine.data.tables.header import Header
from epochtop.engine.protocol.spec import Invalid


def read_parquet(path: Path, target: str) -> RawDataset:
    """Read a table whose column `target` has the labels. Raises Invalid.

    x is float32 where every feature is stored as float32, else float64.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Invalid("dataset", "parquet:PATH needs pyarrow; get it with: pip install 'epochtop[parquet]'") from None
    if path.is_dir():
        raise Invalid("dataset", f"{path} is a folder; name a Parquet file in it")
    try:
        with ParquetFile(path) as file:
            return _table(path, file, target)
    except FileNotFoundError:
        raise Invalid("dataset", f"there is no file {path}") from None
    except (ArrowException, OSError) as error:
        raise Invalid("dataset", f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _table(path: Path, file: Any, target: str) -> RawDataset:
    schema = file.schema_arrow
    label = Header(path, "", tuple(schema.names)).place(target)
    columns = tuple(name for name in schema.names if name != target)
    _check_types(path, schema, columns)
    rows = file.metadata.num_rows
    if rows < 2:
        raise Invalid("dataset", f"{path} has {rows} rows; at least two are needed")
    single = all(str(schema.field(name).type) in ("float", "halffloat") for name in columns)
    x = np.empty((rows, len(columns)), dtype=np.float32 if single else np.float64)
    places = [place for place in range(len(schema.names)) if place != label]
    for number, place in enumerate(places):
        x[:, number] = _numbers(path, file, schema, schema.names[place])
    labels = labels_of(_labels(path, file, schema, target), target)
    return RawDataset(
        kind="table", x=x, y=labels.y, loss=labels.loss, classes=labels.classes, columns=columns, target=target
    )


def _check_types(path: Path, schema: Any, columns: tuple[str, ...]) -> None:
    from pyarrow import types

    fit = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    words = [
        f"{name!r} ({schema.field(name).type})"
        for name in columns
        if not any(is_(schema.field(name).type) for is_ in fit)
    ]
    if words:
        which = f"column {words[0]} holds no numbers" if len(words) == 1 else f"{len(words)} columns hold no numbers"
        named = "" if len(words) == 1 else f": {', '.join(words)}"
        raise Invalid("dataset", f"{path}: {which}{named}; encode them as numbers or drop them")


def _column(path: Path, file: Any, name: str) -> Any:
    """A column without gaps."""
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
    """Numbers as an array, everything else as texts."""
    from pyarrow import types

    kind = schema.field(target).type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _numbers(path, file, schema, target)
    return [str(value) for value in _column(path, file, target).to_pylist()]
