"""Tables from Parquet and Feather files, read column by column, so that memory holds the table only once.

Never imports torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.tables.cells.objects import typed_strings
from epochtop.engine.data.tables.column import (
    CellType,
    ChooseTypes,
    Column,
    NumberColumn,
    Table,
    TextColumn,
    TimeColumn,
)
from epochtop.engine.protocol.spec import Invalid

_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


def read_parquet(path: Path, choose: ChooseTypes) -> Table:
    """The table in a Parquet file. Raises Invalid.

    Numbers are float32 if all of them are stored as float32, else float64.
    """
    with _explained(path, "Parquet"):
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            read = lambda name: file.read(columns=[name], use_threads=False).column(0)  # noqa: E731
            return table_of(str(path), file.schema_arrow, file.metadata.num_rows, choose, read)


def read_feather(path: Path, choose: ChooseTypes) -> Table:
    """The table in a Feather file of version 2, which is an Arrow file. Raises Invalid."""
    with _explained(path, "Feather"):
        import pyarrow

        with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_file(source) as file:
            table = file.read_all()
            return table_of(str(path), table.schema, table.num_rows, choose, table.column)


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    """Turn errors of pyarrow into Invalid."""
    try:
        from pyarrow import ArrowException
    except ImportError:
        command = "pip install 'epochtop[parquet]'"
        raise Invalid("dataset", f"{kind.lower()}:PATH needs pyarrow; install it with: {command}") from None
    with explain_errors(path, f"{kind} file"), open(path, "rb"):
        pass
    try:
        yield
    except (ArrowException, OSError) as error:
        raise Invalid("dataset", f"{path} cannot be read as {kind}: {' '.join(str(error).split())}") from None


def table_of(source: str, schema: Any, rows: int, choose: ChooseTypes, read: Callable[[str], Any]) -> Table:
    """The table with this schema; `read` gives a column as a chunked array, `source` names it in messages. Raises Invalid."""
    types = dict(zip(schema.names, choose(tuple(schema.names)), strict=True))
    index = [name for name in _pandas_index(schema) if types[name] == "any"]
    names = [name for name in schema.names if types[name] != "skip" and name not in index]
    if index and all(types[name] == "label" for name in names):
        raise Invalid("dataset", f"{source} has no feature columns except its index; add one")
    in_matrix = [name for name in names if types[name] in ("any", "number") and _is_number(schema.field(name).type)]
    single = all(str(schema.field(name).type) in ("float", "halffloat") for name in in_matrix)
    numbers = np.empty((rows, len(in_matrix)), dtype=np.float32 if single else np.float64)
    columns: list[Column] = []
    for name in names:
        column = _column(name, read(name), types[name])
        if name in in_matrix and isinstance(column, NumberColumn):
            place = numbers[:, in_matrix.index(name)]
            place[...] = column.values
            column = NumberColumn(name, place)
        columns.append(column)
    is_whole = all(isinstance(column, NumberColumn) for column in columns if column.name in in_matrix)
    return Table(
        source=source,
        columns=tuple(columns),
        lines=range(1, rows + 1),
        unit="row",
        numbers=numbers if in_matrix and is_whole else None,
        number_names=tuple(in_matrix) if is_whole else (),
        notes=tuple(
            f"column {name!r} is the index of a pandas table; it is left out of the features" for name in index
        ),
    )


def _pandas_index(schema: Any) -> list[str]:
    """Names of the columns that hold the index of a pandas table, by its metadata or by the names that pandas gives."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        stored = []
    names = {name for name in stored if isinstance(name, str)} if isinstance(stored, list) else set()
    return [name for name in schema.names if name in names or _UNNAMED_INDEX.fullmatch(name)]


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return any(is_(kind) for is_ in (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean))


def _column(name: str, column: Any, kind: CellType) -> Column:
    from pyarrow import types

    stored = column.type
    if types.is_null(stored):
        return NumberColumn(name, np.full(len(column), np.nan))
    if types.is_timestamp(stored) or types.is_date(stored):
        return TimeColumn(name, _times(column))
    is_plain = types.is_integer(stored) or types.is_floating(stored)
    if kind != "text" and (is_plain or (kind != "label" and types.is_decimal(stored))):
        return NumberColumn(name, _numbers(column))
    if types.is_boolean(stored) and kind in ("any", "number") and not (kind == "any" and column.null_count):
        return NumberColumn(name, _numbers(column))
    return typed_strings(_texts(name, column), kind)


def _numbers(column: Any) -> npt.NDArray[Any]:
    """Numbers or booleans; float64 with NaN for missing ones if there are some."""
    import pyarrow

    if pyarrow.types.is_decimal(column.type) or (column.null_count and not pyarrow.types.is_floating(column.type)):
        column = column.cast(pyarrow.int8()) if pyarrow.types.is_boolean(column.type) else column
        column = column.cast(pyarrow.float64(), safe=False)
    return np.asarray(column.to_numpy())


def _times(column: Any) -> npt.NDArray[np.datetime64]:
    import pyarrow

    times = column.cast(pyarrow.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return np.asarray(times.to_numpy()).astype("datetime64[us]")


def _texts(name: str, column: Any) -> TextColumn:
    """Texts, or anything else as text, by code."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.unify_dictionaries()
        indices = [chunk.indices for chunk in column.chunks]
        values = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
    elif types.is_nested(column.type) or types.is_decimal(column.type):
        texts = [None if value is None else _text(value) for value in column.to_pylist()]
        return _texts(name, pyarrow.chunked_array([pyarrow.array(texts, type=pyarrow.string())]))
    else:
        encoded = column.dictionary_encode()
        indices = [chunk.indices for chunk in encoded.chunks]
        values = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    joined = pyarrow.chunked_array(indices, type=None if indices else pyarrow.int32())
    codes = np.asarray(joined.cast(pyarrow.int32()).fill_null(-1).to_numpy(), dtype=np.int32)
    return TextColumn(name, codes, tuple("" if value is None else _text(value) for value in values))


def _text(value: Any) -> str:
    from decimal import Decimal

    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return format(value, "f") if isinstance(value, Decimal) else str(value)
