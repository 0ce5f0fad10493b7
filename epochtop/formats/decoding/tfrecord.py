"""TFRecord framing: length, checksum of the length, contents, checksum of the contents.

Source: TensorFlow's `record_writer.h`. Imports the standard library only.
"""

from __future__ import annotations

import struct

from epochtop.formats.decoding.crc32c import masked_crc32c

HEADER_BYTES, FOOTER_BYTES = 12, 4
LONGEST = 1 << 31
"""Records of this length or more do not exist: protobuf messages are shorter."""

_header = struct.Struct("<QI").unpack_from
_footer = struct.Struct("<I").unpack_from


def length_at(data: bytes, at: int) -> int | None:
    """Length of the contents of the record that begins at `at`; None if its header is damaged."""
    length, checksum = _header(data, at)
    if length >= LONGEST or masked_crc32c(data[at : at + 8]) != checksum:
        return None
    return int(length)


def intact(data: bytes, start: int, end: int) -> bool:
    """Whether the contents in data[start:end] match the checksum after them."""
    return bool(masked_crc32c(data[start:end]) == _footer(data, end)[0])


def next_record(data: bytes, at: int) -> int:
    """Where the next record with an undamaged header begins, at `at` or later; else the place to search from with more data.

    The upper half of every length is zero, which finds candidates quickly; a checksum of 32 bits confirms them.
    """
    last = len(data) - HEADER_BYTES
    while at <= last:
        zeros = data.find(b"\0\0\0\0", at + 4)
        if zeros < 0:
            return max(at, len(data) - HEADER_BYTES + 1)
        at = zeros - 4
        if at > last or length_at(data, at) is not None:
            return at
        at += 1
    return at
