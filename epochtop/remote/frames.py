"""What goes over the connection: frames of a JSON object and bytes, in both directions, and the names they may hold.

Both sides use this module. A frame is the length of the JSON text and of the bytes (two big-endian 32-bit numbers), the text,
and the bytes. What a shell prints before the first frame is skipped: the first frame follows a marker that the viewer chose.
Imports the standard library only.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Frame = tuple[dict[str, Any], bytes]

PROTOCOL = 1
"""Version of the frames' meaning."""
LARGEST = 8 << 20
"""Most bytes of either part of a frame, also after decompression."""
MOST_NOISE = 1 << 20
"""Most bytes that may come before the marker."""
COMPRESSED = 1024
"""Least number of bytes that are compressed."""
LONGEST_NAME = 255
"""Most bytes of the name of a file or a folder."""
DEEPEST = 8
"""Most names in the path of a file of a run."""
LAB = "lab/"
"""What ids of experiments begin with: they are in a subfolder of the home folder."""

_LENGTHS = struct.Struct(">II")


class ProtocolError(ValueError):
    """The other side sent something else than frames."""


def encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    if len(body) >= COMPRESSED:
        smaller = _compressed(body)
        if len(smaller) < len(body):
            header, body = {**header, "compressed": True}, smaller
    text = json.dumps(header).encode("ascii")
    return _LENGTHS.pack(len(text), len(body)) + text + body


def _compressed(body: bytes) -> bytes:
    try:
        import zlib
    except ImportError:  # a Python that was built without it
        return body
    return zlib.compress(body, 1)


class Decoder:
    """Takes bytes as they come and returns the frames in them. Skips everything before `marker`."""

    def __init__(self, marker: bytes = b"") -> None:
        self._marker, self._buffer = marker, bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now. Raises ProtocolError."""
        self._buffer += data
        if self._marker and not self._skip_noise():
            return []
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _skip_noise(self) -> bool:
        """Whether the marker has come."""
        place = self._buffer.find(self._marker)
        if place < 0:
            if len(self._buffer) > MOST_NOISE:
                raise ProtocolError(f"its shell printed more than {MOST_NOISE >> 20} MiB before the first answer")
            return False
        del self._buffer[: place + len(self._marker)]
        self._marker = b""
        return True

    def _next(self) -> Frame | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        text_size, body_size = _LENGTHS.unpack_from(self._buffer)
        if text_size > LARGEST or body_size > LARGEST:
            raise ProtocolError("it sent a frame that is too large")
        end = _LENGTHS.size + text_size + body_size
        if len(self._buffer) < end:
            return None
        text = bytes(self._buffer[_LENGTHS.size : _LENGTHS.size + text_size])
        body = bytes(self._buffer[_LENGTHS.size + text_size : end])
        del self._buffer[:end]
        try:
            header = json.loads(text)
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict) or not isinstance(header.get("type"), str):
            raise ProtocolError("it sent a frame that is not a JSON object with a type")
        return header, _expanded(body) if header.get("compressed") else body


def _expanded(body: bytes) -> bytes:
    import zlib

    try:
        expander = zlib.decompressobj()
        content = expander.decompress(body, LARGEST)
    except zlib.error:
        raise ProtocolError("it sent bytes that cannot be decompressed") from None
    if expander.unconsumed_tail or not expander.eof:
        raise ProtocolError("it sent a frame that is too large")
    return content


# --- names -------------------------------------------------------------------------------------------------------


def is_name(name: object) -> bool:
    """Whether a text can be the name of a run or of one of its files: visible, printable, not too long, and no path."""
    if not isinstance(name, str) or not name or name.startswith(".") or "/" in name or not name.isprintable():
        return False
    try:
        return len(name.encode("utf-8")) <= LONGEST_NAME
    except UnicodeEncodeError:
        return False


def is_run_id(text: object) -> bool:
    """Whether a text is the id of a run: a name, after `lab/` for an experiment."""
    if not isinstance(text, str):
        return False
    return is_name(text[len(LAB) :] if text.startswith(LAB) else text)


def is_file_path(text: object) -> bool:
    """Whether a text is the path of a file inside a run directory."""
    if not isinstance(text, str):
        return False
    names = text.split("/")
    return len(names) <= DEEPEST and all(map(is_name, names))
