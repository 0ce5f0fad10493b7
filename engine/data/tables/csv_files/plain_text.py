"""A file of text as plain text: decompressed, in UTF-8, with lines that end in `\\n` or `\\r\\n`.

A file that is plain already is read where it is. Any other is copied into a private temporary file, with the same lines.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from epochtop.engine.data.opening import explain_errors
from epochtop.engine.data.tables.csv_files.content import HEAD_BYTES, check_is_text, compression
from epochtop.engine.protocol.spec import Invalid

COUNTED_BYTES = 2**18
"""Bytes of a block whose line ends and quotes are counted; few enough for the processor's cache."""
COPIED_BYTES = 2**22
"""Bytes of a block that is decompressed or decoded."""
_FEWEST_BYTES = 16
"""A file with fewer bytes does not show that it is UTF-16 without a byte order mark."""
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip


@dataclass(frozen=True)
class Utf8File:
    """A file in UTF-8."""

    source: Path
    """The user's file, for messages."""
    path: Path
    """The file to read: `source`, or a temporary copy of its text."""
    start: int
    """Bytes before the text: the length of a byte order mark, or 0."""
    size: int
    """Bytes of `path`."""
    line_count: int
    """Number of lines; the last one may lack its line end."""
    counts: tuple[tuple[int, int], ...] = ()
    """Number of line ends and of quotes in each block of COUNTED_BYTES of `path`."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Census:
    """What a whole file holds."""

    lines: int
    counts: tuple[tuple[int, int], ...]
    lone_returns: int
    """Carriage returns that no line feed follows."""
    is_utf8: bool


@contextmanager
def plain_text(
    source: Path,
    encoding: str = "auto",
    kind: str = "CSV file",
    is_delimited: bool = True,
    likely_encoding: str = "auto",
) -> Iterator[Utf8File]:
    """The text of `source`, for the time of the context. Raises Invalid, also for errors of reading in the context.

    `kind` is the kind of file that is expected; JSON is refused if it is `is_delimited`.
    `encoding` is a codec of Python, or `auto`: the byte order mark, else UTF-8, else `likely_encoding` if that is not
    `auto`, else Windows-1252, else Latin-1.
    """
    advice = "save the file as UTF-8, or set encoding"
    with (
        TemporaryDirectory(prefix="epochtop-") as folder,
        explain_errors(source, kind, unit="line", encoding_advice=advice),
    ):
        decompressed = _decompressed(source, Path(folder), is_delimited)
        yield _decoded(source, decompressed, encoding, likely_encoding, Path(folder))


def _decompressed(source: Path, folder: Path, is_delimited: bool) -> Path:
    with open(source, "rb") as file:
        head = file.read(HEAD_BYTES)
    method = compression(head)
    if not method:
        check_is_text(source, head, is_delimited)
        return source
    path = folder / "decompressed"
    try:
        with _decompressor(source, method) as reader, open(path, "wb") as writer:
            shutil.copyfileobj(reader, writer, COPIED_BYTES)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
        raise Invalid("dataset", f"{source} is damaged {method} data: {error}") from None
    with open(path, "rb") as file:
        check_is_text(source, file.read(HEAD_BYTES), is_delimited)
    return path


def _decompressor(path: Path, method: str) -> Any:
    if method == "gzip":
        return gzip.open(path)
    if method == "bzip2":
        return bz2.open(path)
    if method == "xz":
        return lzma.open(path)
    try:
        import zstandard  # type: ignore[import-not-found, unused-ignore]

        return zstandard.open(path, "rb")
    except ImportError:
        pass
    try:
        import pyarrow

        return pyarrow.CompressedInputStream(str(path), "zstd")
    except ImportError:
        raise Invalid(
            "dataset", f"{path} is compressed with zstd; decompress it (zstd -d {path.name}) or pip install zstandard"
        ) from None


def _decoded(source: Path, path: Path, encoding: str, likely_encoding: str, folder: Path) -> Utf8File:
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    codec, notes = (_MARKS[mark] if mark else _wide_codec(source, head) or "utf-8"), tuple[str, ...]()
    if encoding != "auto":
        codec = encoding
    if codecs.lookup(codec).name in ("utf-8", "utf-8-sig"):
        start = len(mark) if mark == codecs.BOM_UTF8 else 0
        census = _census(path)
        if census.is_utf8 and not census.lone_returns:
            return Utf8File(source, path, start, path.stat().st_size, census.lines, census.counts)
        if census.is_utf8:
            codec = "utf-8-sig"
        elif encoding == "auto":
            codec, notes = (likely_encoding, ()) if likely_encoding != "auto" else _single_byte_codec(path)
    copy = _transcoded(source, path, codec, folder / "text")
    census = _census(copy)
    return Utf8File(source, copy, 0, copy.stat().st_size, census.lines, census.counts, notes)


def _wide_codec(source: Path, head: bytes) -> str:
    """The codec of text in UTF-16 without a byte order mark. Raises Invalid for NUL bytes in other places."""
    if b"\0" not in head:
        return ""
    even, odd = head[::2].count(0) / len(head) * 2, head[1::2].count(0) / len(head) * 2
    if odd > 0.3 and even < 0.05 and len(head) >= _FEWEST_BYTES:
        return "utf-16-le"
    if even > 0.3 and odd < 0.05 and len(head) >= _FEWEST_BYTES:
        return "utf-16-be"
    raise Invalid("dataset", f"{source} is not text: it holds NUL bytes; name a CSV file in UTF-8 or another encoding")


def count_of(data: bytes, byte: bytes) -> int:
    """How often a byte occurs. `bytes.count` of Python 3.11 takes 1 ns per byte, ten times as long."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord(byte))) if byte in data else 0


def _census(path: Path) -> _Census:
    """Count what decides how the file is read, in one pass."""
    returns = pairs = 0
    counts = list[tuple[int, int]]()
    last, is_utf8, is_split, decoder = b"\n", True, False, codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        while block := file.read(COUNTED_BYTES):
            counts.append((count_of(block, b"\n"), count_of(block, b'"')))
            if last.endswith(b"\r") or b"\r" in block:
                returns += block.count(b"\r")
                pairs += block.count(b"\r\n") + (last.endswith(b"\r") and block.startswith(b"\n"))
            if is_utf8 and (is_split or not block.isascii()):
                try:
                    decoder.decode(block)
                    is_split = bool(decoder.getstate()[0])
                except UnicodeDecodeError:
                    is_utf8 = False
            last = block[-1:]
    lines = sum(newlines for newlines, _ in counts) + (last != b"\n")
    return _Census(lines, tuple(counts), returns - pairs, is_utf8 and not is_split)


def _single_byte_codec(path: Path) -> tuple[str, tuple[str, ...]]:
    """The codec of a file that is not UTF-8: Windows-1252 unless it holds a byte without a letter there."""
    undefined, codec = frozenset(b"\x81\x8d\x8f\x90\x9d"), "cp1252"
    with open(path, "rb") as file:
        while codec == "cp1252" and (block := file.read(COUNTED_BYTES)):
            if not undefined.isdisjoint(block):
                codec = "latin-1"
    name = {"cp1252": "Windows-1252", "latin-1": "Latin-1"}[codec]
    return codec, (f"the file is not UTF-8, so it is read as {name}; set encoding if letters are wrong",)


def _transcoded(source: Path, path: Path, codec: str, copy: Path) -> Path:
    """A copy in UTF-8 whose lines end in a line feed. Raises Invalid for bytes that are not text in `codec`."""
    try:
        with (
            open(path, encoding=codec) as reader,  # universal newlines
            open(copy, "w", encoding="utf-8", newline="\n") as writer,
        ):
            first = reader.read(1)
            writer.write(first.removeprefix("\ufeff"))
            shutil.copyfileobj(reader, writer, COPIED_BYTES)
    except UnicodeError as error:
        if codecs.lookup(codec).name == "utf-8" and isinstance(error, UnicodeDecodeError):
            raise
        reason = f"{error.reason}" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Invalid("encoding", f"{source} is not {codec}: {reason}; choose another encoding") from None
    return copy
