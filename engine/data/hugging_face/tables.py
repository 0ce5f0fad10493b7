"""A saved dataset without images and texts as a table: its columns take the path of every other table.

Never imports torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import msgspec
import numpy as np

from epochtop.engine.data.columns.assembly import HeldOut, dataset_of
from epochtop.engine.data.columns.selection import ColumnSelection
from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.data.hugging_face.saved import MOST_LISTED, SavedDataset
from epochtop.engine.data.tables.arrow import table_of
from epochtop.engine.data.tables.column import Table
from epochtop.engine.protocol.spec import Invalid, RunSpec


def read_columns(spec: RunSpec, saved: SavedDataset) -> RawDataset:
    """Rows of a table with fixed validation and test rows where the dataset has such parts. Raises Invalid.

    Class names are the texts of their column; -1, which means no class, is a missing value. The classes of the label have
    the order of their numbers.
    """
    names = saved.class_names(spec.target or saved.usual_label)
    if names and spec.problem == "auto":
        spec = msgspec.structs.replace(spec, problem="classification")
    selection = ColumnSelection(spec, saved.usual_label)
    raw = dataset_of(_table(saved, selection, spec), selection, _held_out(saved))
    names = saved.class_names(raw.target)
    return replace(raw, classes=tuple(names[int(code)] for code in raw.classes)) if names else raw


def _held_out(saved: SavedDataset) -> HeldOut:
    held_out: dict[Literal["validation", "test"], slice] = {}
    start = 0
    for part, split in saved.parts.items():
        if part != "train":
            held_out[part] = slice(start, start + len(split))
        start += len(split)
    return held_out


def _table(saved: SavedDataset, selection: ColumnSelection, spec: RunSpec) -> Table:
    usable = saved.of_type("Value", "ClassLabel")
    others = [f"{name} ({type(saved.features[name]).__name__})" for name in saved.features if name not in usable]
    if not usable:
        raise Invalid(
            "dataset", f"{saved.where} has no columns of images, texts or numbers; it has {', '.join(others)}"
        )
    rows = _arrow_table(saved, usable)
    targets = {part.strip() for part in (spec.target or saved.usual_label).split(",")}
    for name in saved.of_type("ClassLabel"):
        rows = _with_class_names(rows, name, () if name in targets else saved.class_names(name))
    table = table_of(str(saved.where), rows.schema, rows.num_rows, selection, rows.column)
    notes = (f"columns of other types are not used: {', '.join(others[:MOST_LISTED])}",) if others else ()
    return replace(
        table,
        lines=np.concatenate([np.arange(1, len(split) + 1) for split in saved.parts.values()]),
        parts=tuple((f"{saved.where}, {part}", len(split)) for part, split in saved.parts.items()),
        notes=(*saved.notes, *notes, *table.notes),
    )


def _arrow_table(saved: SavedDataset, columns: list[str]) -> Any:
    """The columns of all parts, one part below the other; a column that a part lacks is missing there."""
    import pyarrow

    parts = [split.with_format("arrow")[:] for split in saved.parts.values()]
    tables = [part.select([name for name in columns if name in part.column_names]) for part in parts]
    try:
        return pyarrow.concat_tables(tables, promote_options="permissive").select(columns)
    except pyarrow.ArrowException as error:
        raise Invalid("dataset", f"the parts of {saved.where} have different columns: {error}") from None


def _with_class_names(rows: Any, column: str, names: tuple[str, ...]) -> Any:
    """The table in which numbers of classes are their names, if `names` are given, and -1 is missing."""
    import pyarrow
    from pyarrow import compute

    codes = rows.column(column).cast(pyarrow.int64())
    codes = compute.if_else(compute.greater_equal(codes, 0), codes, None).cast(pyarrow.int64())
    if names:
        codes = compute.take(pyarrow.array(names), codes)
    return rows.set_column(rows.column_names.index(column), column, codes)
