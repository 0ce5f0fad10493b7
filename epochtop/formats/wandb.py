"""`.wandb` files, which wandb writes in every mode: history and configuration of one run.

The framing is that of a LevelDB log: blocks of 32 KiB with records that are full or in parts, each with a CRC-32. Field
numbers are those of wandb's `wandb_internal.proto`. Imports the standard library only.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from epochtop.formats.decoding.growing import GrowingFile, modified_time, read_head
from epochtop.formats.decoding.protobuf import (
    BYTES,
    FIXED64,
    VARINT,
    Field,
    Malformed,
    double,
    fields,
    signed,
    text,
)
from epochtop.formats.records import (
    NAN,
    Collector,
    Configuration,
    Description,
    Ended,
    Record,
    Restart,
    flatten,
    number,
    unix_time,
)

IDENTITY = b":W&B"
HEADER_BYTES = 7
BLOCK_BYTES, RECORD_HEADER = 32_768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
LONGEST_RECORD = 1 << 24
"""Longer records are skipped."""
OWN_KEYS = ("_step", "_timestamp", "_runtime", "_wandb")
"""Entries of the history that wandb adds."""


def recognize(path: Path, head: bytes) -> bool:
    """Whether a file begins as wandb's do."""
    return head.startswith(IDENTITY)


class WandbFollower:
    """Follows one file."""

    def __init__(self, path: Path, last_bytes: int | None = None) -> None:
        self._path = path
        self.damaged = 0
        self._file = GrowingFile(path)
        self._generation = 0
        self._data = b""
        self._offset = 0
        """Offset in the file of the first byte of `_data`."""
        self._parts: bytearray | None = None
        """Parts so far of a record that spans several."""
        self._collector = Collector()
        self._step = -1
        if last_bytes is not None:
            try:
                size = path.stat().st_size
            except OSError:
                size = 0
            if size > max(last_bytes, 2 * BLOCK_BYTES):
                self._read_beginning()
                self._offset = (size - last_bytes) // BLOCK_BYTES * BLOCK_BYTES
                self._file.start_at(self._offset)

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        while not (records := self._collector.take()):
            new = self._file.read()
            if self._file.generation != self._generation:
                self._generation, self._offset, self._data, self._parts = self._file.generation, 0, b"", None
                self._collector.put(Restart(-(1 << 63)))
            if not new:
                return self._collector.take()
            self._data += new
            used = self._decode(self._data)
            self._data, self._offset = self._data[used:], self._offset + used
        return records

    def modified(self) -> float:
        """Unix time of the last change."""
        return modified_time(self._path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_beginning(self) -> None:
        """Take the description, the configuration and the first values from the first block."""
        try:
            self._decode(read_head(self._path, BLOCK_BYTES))
        except OSError:
            return
        self._parts, self.damaged = None, 0

    def _decode(self, data: bytes) -> int:
        """Decode the complete records in `data`. Returns the number of bytes used."""
        at, size = 0, len(data)
        if self._offset == 0:
            if size < HEADER_BYTES:
                return 0
            at = HEADER_BYTES
        while True:
            left = BLOCK_BYTES - (self._offset + at) % BLOCK_BYTES
            if left < RECORD_HEADER:  # the end of a block is filled with zeros
                if at + left > size:
                    return at
                at += left
                continue
            if at + RECORD_HEADER > size:
                return at
            length, kind = data[at + 4] | data[at + 5] << 8, data[at + 6]
            start = at + RECORD_HEADER
            end = start + length
            whole = length + RECORD_HEADER <= left
            if whole and end > size:
                return at
            checksum = int.from_bytes(data[at : at + 4], "little")
            if whole and FULL <= kind <= LAST and zlib.crc32(data[at + 6 : end]) == checksum:
                self._put_together(kind, data[start:end])
                at = end
            else:
                if at + left > size:
                    return at  # the next block, where reading can continue, is not written yet
                self.damaged += 1
                self._parts = None
                at += left

    def _put_together(self, kind: int, part: bytes) -> None:
        """Add a record, or a part of one."""
        if kind == FULL:
            self._parts = None
            self._add(part)
        elif kind == FIRST:
            self._parts = bytearray(part)
        elif self._parts is not None:
            self._parts += part
            if len(self._parts) > LONGEST_RECORD:
                self._parts = None
                self.damaged += 1
            elif kind == LAST:
                self._add(bytes(self._parts))
                self._parts = None

    def _add(self, record: bytes) -> None:
        try:
            for field in fields(record):
                if field.wire != BYTES:
                    continue
                if field.number == 2:
                    self._add_history(record, field)
                elif field.number == 5:
                    self._configure(_items(record, field, 1))
                elif field.number == 17:
                    self._describe(record, field)
                elif field.number == 18:
                    self._end(record, field)
        except Malformed:
            self.damaged += 1

    def _add_history(self, record: bytes, history: Field) -> None:
        values = _items(record, history, 1)
        step = next(
            (
                signed(part.value)
                for field in fields(record, history.start, history.end)
                if field.number == 2 and field.wire == BYTES
                for part in fields(record, field.start, field.end)
                if part.number == 1
            ),
            0 if any(field.number == 2 for field in fields(record, history.start, history.end)) else None,
        )
        own = number(values.get("_step"))
        if own is not None and abs(own) < 1 << 62:
            step = int(own)
        self._step = self._step + 1 if step is None else step
        time = unix_time(values.get("_timestamp"))
        for name, value in flatten(values).items():
            amount = number(value)
            if amount is not None and name not in OWN_KEYS:
                self._collector.add(name, self._step, time, amount)

    def _configure(self, values: dict[str, Any]) -> None:
        """Put a configuration; wandb wraps each value in `{"value": …}` in some versions."""
        plain = {name: _unwrapped(value) for name, value in values.items() if name != "_wandb"}
        if plain:
            self._collector.put(Configuration(flatten(plain)))

    def _describe(self, record: bytes, run: Field) -> None:
        texts: dict[int, str] = {}
        tags: list[str] = []
        for field in fields(record, run.start, run.end):
            if field.wire == BYTES and field.number in (1, 3, 6, 8, 9):
                texts[field.number] = text(record, field)
            elif field.wire == BYTES and field.number == 10:
                tags.append(text(record, field))
            elif field.wire == BYTES and field.number == 4:
                self._configure(_items(record, field, 1))
        self._collector.put(
            Description(
                name=texts.get(8) or texts.get(1, ""),
                project=texts.get(3, ""),
                group=texts.get(6, ""),
                tags=tuple(tags),
                notes=texts.get(9, ""),
            )
        )

    def _end(self, record: bytes, end: Field) -> None:
        status = 0
        for field in fields(record, end.start, end.end):
            if field.number == 1:
                status = signed(field.value)
        outcome = "finished" if status == 0 else "stopped" if status in (130, 143, 255) else "failed"
        self._collector.put(Ended(outcome, NAN, f"exit status {status}" if status else "", status))


def _items(record: bytes, parent: Field, number_of_items: int) -> dict[str, Any]:
    """The items of a history, configuration or summary: values by name. Items that are not JSON are left out."""
    values: dict[str, Any] = {}
    for item in fields(record, parent.start, parent.end):
        if item.number != number_of_items or item.wire != BYTES:
            continue
        name, nested, value, present = "", [], None, False
        for field in fields(record, item.start, item.end):
            if field.number == 1 and field.wire == BYTES:
                name = text(record, field)
            elif field.number == 2 and field.wire == BYTES:
                nested.append(text(record, field))
            else:
                value, present = _value(record, field, value, present)
        if present and (name or nested):
            values["/".join([name, *nested] if name and nested != [name] else nested or [name])] = value
    return values


def _value(record: bytes, field: Field, value: Any, present: bool) -> tuple[Any, bool]:
    """The value of an item after one more of its fields, and whether it has one."""
    if field.number in (8, 16) and field.wire == BYTES:
        try:
            return json.loads(text(record, field)), True
        except (ValueError, RecursionError):
            return value, present
    if field.number == 4 and field.wire == VARINT:
        return bool(field.value), True
    if field.number == 5 and field.wire == VARINT:
        return signed(field.value), True
    if field.number == 6 and field.wire == FIXED64:
        return double(record, field), True
    if field.number == 7 and field.wire == BYTES:
        return text(record, field), True
    return value, present


def _unwrapped(value: Any) -> Any:
    return value["value"] if isinstance(value, dict) and set(value) <= {"value", "desc"} and "value" in value else value
