"""One event of a TensorBoard file, decoded field by field.

Field numbers are those of TensorBoard's `event.proto`, `summary.proto`, `tensor.proto` and `plugin_data.proto` of hparams.
Imports the standard library only.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from epochtop.formats.decoding.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    Field,
    Malformed,
    double,
    fields,
    signed,
    text,
    varints,
)

SESSION_START = 1
SCALARS = ("", "scalars")
"""Plugins whose values are scalars; older writers name none."""

_CONTENTS = {1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q", 10: "?", 17: "H", 19: "e", 22: "I", 23: "Q"}
"""Format of `tensor_content` by data type."""
_BFLOAT16, _HALF = 14, 19


class Scalar(NamedTuple):
    """One value."""

    name: str
    value: float
    position: int
    """Where its four bytes are in the data, if it is stored as a 32-bit float; else 0."""


class Event(NamedTuple):
    """What is of interest in one event."""

    time: float
    step: int
    scalars: list[Scalar]
    summary_start: int
    """Where the field of the summary begins, if nothing follows it; else 0."""
    starts_session: bool
    config: dict[str, Any]


def decode(data: bytes, start: int, end: int) -> Event:
    """Decode the event in data[start:end]. Raises Malformed."""
    time, step, summary_start, starts_session = 0.0, 0, 0, False
    scalars: list[Scalar] = []
    config: dict[str, Any] = {}
    place = start
    for field in fields(data, start, end):
        if field.number == 1:
            time = double(data, field)
        elif field.number == 2:
            step = signed(field.value)
        elif field.number == 5 and field.wire == BYTES:
            summary_start = place
            for value in fields(data, field.start, field.end):
                if value.number == 1 and value.wire == BYTES:
                    _decode_value(data, value, scalars, config)
        elif field.number == 7 and field.wire == BYTES:
            starts_session = any(
                status.number == 1 and status.value == SESSION_START for status in fields(data, field.start, field.end)
            )
        place = field.end
    return Event(time, step, scalars, summary_start, starts_session, config)


def _decode_value(data: bytes, value: Field, scalars: list[Scalar], config: dict[str, Any]) -> None:
    """Decode one value of a summary into `scalars`, or settings of the hparams plugin into `config`."""
    name, plugin, number, tensor = "", "", None, None
    content: Field | None = None
    for field in fields(data, value.start, value.end):
        if field.number == 1 and field.wire == BYTES:
            name = text(data, field)
        elif field.number == 2 and field.wire == FIXED32:
            number = Scalar(name, struct.unpack_from("<f", data, field.start)[0], field.start)
        elif field.number == 8 and field.wire == BYTES:
            tensor = field
        elif field.number == 9 and field.wire == BYTES:
            plugin, content = _plugin(data, field)
    if plugin == "hparams" and content is not None:
        config.update(_hparams(data, content))
    if plugin not in SCALARS or not name:
        return
    if number is None and tensor is not None:
        number = _scalar_of(data, tensor)
    if number is not None:
        scalars.append(Scalar(name, number.value, number.position))


def _plugin(data: bytes, metadata: Field) -> tuple[str, Field | None]:
    """Name and data of the plugin that a value is meant for."""
    name, content = "", None
    for field in fields(data, metadata.start, metadata.end):
        if field.number == 1 and field.wire == BYTES:
            for part in fields(data, field.start, field.end):
                if part.number == 1 and part.wire == BYTES:
                    name = text(data, part)
                elif part.number == 2 and part.wire == BYTES:
                    content = part
    return name, content


def _scalar_of(data: bytes, tensor: Field) -> Scalar | None:
    """The number in a 0-d tensor; None for any other tensor."""
    kind, result = 0, None
    for field in fields(data, tensor.start, tensor.end):
        if field.number == 1:
            kind = field.value
        elif field.number == 2 and field.end > field.start:
            if any(part.number == 2 for part in fields(data, field.start, field.end)):
                return None
        elif field.number == 4 and field.wire == BYTES:
            result = _content(data, field, kind)
        elif field.number in (5, 6):
            result = _packed(data, field, "f" if field.number == 5 else "d")
        elif field.number in (7, 10, 11, 13, 16, 17):
            result = _integer(data, field, kind)
    return result


def _content(data: bytes, field: Field, kind: int) -> Scalar | None:
    """The number that `tensor_content` holds."""
    if kind == _BFLOAT16 and field.end - field.start == 2:
        return Scalar("", _bfloat16(int.from_bytes(data[field.start : field.end], "little")), 0)
    letter = _CONTENTS.get(kind)
    if letter is None or struct.calcsize(f"<{letter}") != field.end - field.start:
        return None
    (value,) = struct.unpack_from(f"<{letter}", data, field.start)
    return Scalar("", float(value), field.start if letter == "f" else 0)


def _packed(data: bytes, field: Field, letter: str) -> Scalar | None:
    """The number in `float_val` or `double_val`, packed or not."""
    size = 4 if letter == "f" else 8
    if field.wire not in (BYTES, FIXED32, FIXED64) or field.end - field.start != size:
        return None
    (value,) = struct.unpack_from(f"<{letter}", data, field.start)
    return Scalar("", value, field.start if letter == "f" else 0)


def _integer(data: bytes, field: Field, kind: int) -> Scalar | None:
    """The number in one of the integer fields, which also hold 16-bit floats."""
    if field.wire not in (0, BYTES):
        return None
    values = varints(data, field)
    if len(values) != 1:
        return None
    if kind == _HALF and field.number == 13:
        return Scalar("", struct.unpack("<e", struct.pack("<H", values[0] & 0xFFFF))[0], 0)
    if kind == _BFLOAT16 and field.number == 13:
        return Scalar("", _bfloat16(values[0] & 0xFFFF), 0)
    value = values[0] if field.number in (16, 17) else signed(values[0])
    return Scalar("", float(value), 0)


def _bfloat16(bits: int) -> float:
    (value,) = struct.unpack("<f", struct.pack("<I", bits << 16))
    return float(value)


def _hparams(data: bytes, content: Field) -> dict[str, Any]:
    """Settings in `HParamsPluginData.session_start_info.hparams`."""
    settings: dict[str, Any] = {}
    for info in fields(data, content.start, content.end):
        if info.number != 3 or info.wire != BYTES:
            continue
        for entry in fields(data, info.start, info.end):
            if entry.number == 1 and entry.wire == BYTES:
                name, value = "", None
                for part in fields(data, entry.start, entry.end):
                    if part.number == 1 and part.wire == BYTES:
                        name = text(data, part)
                    elif part.number == 2 and part.wire == BYTES:
                        value = _setting(data, part)
                settings[name] = value
    return settings


def _setting(data: bytes, field: Field) -> Any:
    """A `google.protobuf.Value` that is a number, a text or a boolean; None for others."""
    for part in fields(data, field.start, field.end):
        if part.number == 2:
            return double(data, part)
        if part.number == 3 and part.wire == BYTES:
            return text(data, part)
        if part.number == 4:
            return bool(part.value)
    return None


__all__ = ["Event", "Malformed", "Scalar", "decode"]
