"""Protocol buffers without a schema: the fields of a message, one after the other.

Source: the encoding page of the protobuf documentation. Imports the standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):  # noqa: N818 - reads as a statement about the message
    """The bytes are not a message."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    wire: int
    """VARINT, FIXED64, BYTES or FIXED32."""
    value: int
    """Unsigned value of a VARINT; else 0."""
    start: int
    """Where the contents begin in the data."""
    end: int
    """Where they end."""


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the message in data[start:end]. Raises Malformed where it is not one."""
    at, limit = start, len(data) if end is None else end
    while at < limit:
        key, at = varint(data, at, limit)
        number, wire = key >> 3, key & 7
        value, first = 0, at
        if wire == VARINT:
            value, at = varint(data, at, limit)
        elif wire == BYTES:
            size, first = varint(data, at, limit)
            at = first + size
        elif wire == FIXED32:
            at += 4
        elif wire == FIXED64:
            at += 8
        else:
            raise Malformed(f"wire type {wire}")
        if at > limit or not number:
            raise Malformed("a field is longer than its message")
        yield Field(number, wire, value, first, at)


def varint(data: bytes, at: int, limit: int) -> tuple[int, int]:
    """The unsigned varint at `at`, and where it ends. Raises Malformed."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= limit:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise Malformed("a varint does not end")


def varints(data: bytes, field: Field) -> list[int]:
    """The values of a repeated varint field: one, or several packed. Raises Malformed."""
    if field.wire == VARINT:
        return [field.value]
    values, at = [], field.start
    while at < field.end:
        value, at = varint(data, at, field.end)
        values.append(value)
    return values


def signed(value: int) -> int:
    """An unsigned varint as int64."""
    return value - (1 << 64) if value >= 1 << 63 else value


def text(data: bytes, field: Field) -> str:
    """The contents of a string field; bytes that are not UTF-8 are replaced."""
    return data[field.start : field.end].decode("utf-8", "replace")


def double(data: bytes, field: Field) -> float:
    """The value of a double. Raises Malformed if the field is not one."""
    if field.wire != FIXED64:
        raise Malformed("not a double")
    (value,) = struct.unpack_from("<d", data, field.start)
    return float(value)
