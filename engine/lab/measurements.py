"""Rows that experiments measure. Each kind of row is a struct, and its fields are the columns of files and pictures.

Imports msgspec and the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, Union

import msgspec

from epochtop.engine.protocol.experiments import Cell

Row = dict[str, Cell]
"""A row as files store it: values by column, with the kind of row in the column `kind`."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """A row of some kind. The tag of its class is the column `kind`; a field with its default has no column.

    A step's row has the field `own`: 1 if the job takes its steps this way without a change, else 0.
    """


Kind = TypeVar("Kind", bound=Measurement)


def of_kind(rows: Iterable[Measurement], kind: type[Kind]) -> list[Kind]:
    """The rows of one kind."""
    return [row for row in rows if isinstance(row, kind)]


def stored(row: Measurement) -> Row:
    """The row as files store it."""
    columns: Row = msgspec.to_builtins(row)
    return columns


def measurements(rows: Iterable[Row], kinds: Sequence[type[Measurement]]) -> list[Measurement]:
    """Stored rows as structs of these kinds. Raises msgspec.ValidationError for a row of another kind."""
    union: Any = Union[tuple(kinds)]  # noqa: UP007 - made at run time
    return [msgspec.convert(row, union) for row in rows]
