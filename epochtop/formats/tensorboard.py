"""TensorBoard event files: one run per folder.

A record of a scalar differs from the previous one of its series in wall time, step and value only. So the bytes around
these are looked up in a table, and only records that are not in it are decoded field by field
(:mod:`tensorboard_event`). `python -m tests.bench opening` measures what this saves.

Checksums. The one of the length is always verified. The one of the contents costs 0.07 µs per byte in Python, so it is
verified where damage could do harm: for records that the table does not know, and for those whose wall time or step does
not follow the previous record, or whose value is out of the ordinary. Every other byte equals a verified record.

Imports the standard library only.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from epochtop.formats.decoding.growing import GrowingFile, modified_time, read_head
from epochtop.formats.decoding.protobuf import Malformed
from epochtop.formats.decoding.tfrecord import FOOTER_BYTES, HEADER_BYTES, intact, length_at, next_record
from epochtop.formats.records import Collector, Configuration, Record, Restart, SeriesBuffer
from epochtop.formats.tensorboard_event import Scalar, decode
from epochtop.formats.tensorboard_hparams import settings_folders

LONGEST_DECODED = 1 << 22
"""Longer records are skipped unread: they hold graphs and images."""
NEW_BYTES = 256
"""An event file has more bytes once it holds settings."""
GAP_S, GAP_STEPS, LARGE = 3600.0, 1 << 20, 1e30
"""Distances from the previous record, and a value, from which on the contents are verified."""

_double = struct.Struct("<d").unpack_from
_float = struct.Struct("<f").unpack_from


def recognize(path: Path, head: bytes) -> bool:
    """Whether a file consists of TFRecords that hold events: the first one has a wall time, and often a version."""
    if len(head) < HEADER_BYTES + 9:
        return False
    length = length_at(head, 0)
    start = HEADER_BYTES
    if length is None or length < 9 or head[start] != 0x09:
        return False
    end = start + length
    if end + FOOTER_BYTES > len(head):
        return True
    if not intact(head, start, end):
        return False
    try:
        decode(head, start, end)
    except Malformed:
        return False
    return True


class TensorBoardFollower:
    """Follows all event files of a folder, in the order of their names, which is that of their creation; then those of the
    folders below that hold the settings of the run.

    If steps of a series go back, or a session starts at a step, what was logged at that step and later no longer counts.
    """

    def __init__(self, folder: Path, last_bytes: int | None = None) -> None:
        self._folder = folder
        self._last_bytes = last_bytes
        self._names: set[str] = set()
        self._files: list[EventFile] = []
        self._collector = Collector()
        self._listed = -1.0

    @property
    def damaged(self) -> int:
        """Number of damaged records that were skipped so far."""
        return sum(file.damaged for file in self._files)

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        self._list()
        for file in self._files:
            while file.read():
                records = self._collector.take()
                if records:
                    return records
        return []

    def modified(self) -> float:
        """Unix time of the last change of a file."""
        self._list()
        return modified_time(*(file.path for file in self._files))

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _list(self) -> None:
        """Look for new files, if the folder has changed."""
        try:
            changed = os.stat(self._folder).st_mtime
            if changed == self._listed:
                return
            names = sorted(name for name in os.listdir(self._folder) if name not in self._names)
        except (FileNotFoundError, NotADirectoryError):
            return
        waiting = [self._folder / name for name in names if not self._add_file(name)]
        for folder in settings_folders(self._folder):
            for path in sorted(folder.iterdir()):
                self._add_file(str(path.relative_to(self._folder)), is_result=True)
        is_new = any(not path.is_dir() or _may_be_new(path) for path in waiting)
        self._listed = -1.0 if is_new else changed

    def _add_file(self, name: str, *, is_result: bool = False) -> bool:
        """Follow a file if it is an event file. False if that is not known yet."""
        path = self._folder / name
        head = _head(path)
        if name not in self._names and recognize(path, head):
            self._files.append(EventFile(path, self._collector, self._last_bytes, is_result=is_result))
        elif len(head) < HEADER_BYTES + 9:
            return False  # a new file may still be empty
        self._names.add(name)
        return True


def _may_be_new(folder: Path) -> bool:
    """Whether a folder has nothing but files that have hardly begun, which may become event files with settings."""
    try:
        with os.scandir(folder) as entries:
            return all(entry.stat().st_size < NEW_BYTES for entry in entries)
    except OSError:
        return False


def _head(path: Path) -> bytes:
    try:
        return read_head(path, 512)
    except OSError:
        return b""


class EventFile:
    """One event file. Hands values to a collector, which the files of a folder share."""

    def __init__(
        self, path: Path, collector: Collector, last_bytes: int | None = None, *, is_result: bool = False
    ) -> None:
        """A value of an `is_result` file counts only if its series has no later one, as it repeats a value of the run."""
        self.path = path
        self._is_result = is_result
        self.damaged = 0
        self._collector = collector
        self._file = GrowingFile(path)
        self._rest = b""
        self._lost = False
        """Whether the place of the next record is unknown."""
        self._skip = 0
        """Bytes of a long record that are still to be skipped."""
        self._lengths: dict[bytes, int] = {}
        """Length by header, of headers whose checksum is right."""
        self._layouts: dict[int, tuple[int, dict[bytes, SeriesBuffer]]] = {}
        """By length of a summary: the position of the value, and the series by the bytes around it."""
        self._time = 0.0
        if last_bytes is not None and (size := _size(path)) > last_bytes:
            self._decode(_head(path), 0)  # the first values tell when the run began
            self.damaged = 0
            self._file.start_at(size - last_bytes)
            self._lost = True

    def read(self) -> bool:
        """Decode the next piece of the file. False if there is nothing new."""
        generation = self._file.generation
        if self._skip:
            self._file.skip(self._skip)
            self._skip = 0
        new = self._file.read()
        if self._file.generation != generation:
            self._rest, self._lost = b"", False
            if not self._is_result:
                self._collector.put(Restart(-(1 << 63)))
        if not new:
            return False
        data = self._rest + new
        at = 0
        while True:
            if self._lost:
                at = next_record(data, at)
                if at > len(data) - HEADER_BYTES:
                    break
                self._lost = False
            at = self._decode(data, at)
            if not self._lost:
                break
        self._skip, self._rest = max(0, at - len(data)), data[at:]
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _decode(self, data: bytes, at: int) -> int:
        """Decode records from `at` on. Returns where the first incomplete one begins, or a damaged one if `_lost` is set."""
        lengths, layouts, filled = self._lengths, self._layouts, self._collector.filled
        size, last_time = len(data), self._time
        while True:
            header = data[at : at + 12]
            length = lengths.get(header)
            if length is None:
                if len(header) < HEADER_BYTES:
                    break
                length = self._length(data, at, header)
                if length is None:
                    break
            start = at + 12
            end = start + length
            if end + 4 > size:
                if length <= LONGEST_DECODED:
                    break
                return end + 4  # a long record: skipped without reading it
            at = end + 4
            # --- the table: wall time (9), step (16), summary (42) ---
            if length > 20 and data[start] == 9:
                place = start + 9
                step = 0
                if data[place] == 16:
                    step = data[place + 1]
                    place += 2
                    if step > 127:
                        step &= 127
                        shift = 7
                        while shift < 63:
                            byte = data[place]
                            place += 1
                            step |= (byte & 127) << shift
                            if byte < 128:
                                break
                            shift += 7
                layout = layouts.get(end - place)
                if layout is not None:
                    hole = place + layout[0]
                    series = layout[1].get(data[place:hole] + data[hole + 4 : end])
                    if series is not None:
                        (time,) = _double(data, start + 1)
                        (value,) = _float(data, hole)
                        if (
                            0.0 <= time - last_time < GAP_S
                            and 0 < step - series.last_step < GAP_STEPS
                            and -LARGE < value < LARGE
                        ):
                            if not series.steps:
                                filled.append(series)
                            series.steps.append(step)
                            series.times.append(time)
                            series.values.append(value)
                            series.last_step = step
                            last_time = time
                            continue
            self._time = last_time
            self._decode_fields(data, start, end)
            last_time = self._time
        self._time = last_time
        return at

    def _length(self, data: bytes, at: int, header: bytes) -> int | None:
        """Length of a record whose header is new; None, and `_lost`, if it is damaged."""
        length = length_at(data, at)
        if length is None:
            self.damaged += 1
            self._lost = True
        elif len(self._lengths) < 10_000:
            self._lengths[header] = length
        return length

    def _decode_fields(self, data: bytes, start: int, end: int) -> None:
        """Verify a record and decode it field by field; add its layout to the table."""
        try:
            event = decode(data, start, end) if intact(data, start, end) else None
        except Malformed:
            event = None
        if event is None:
            self.damaged += 1
            return
        self._time = event.time
        if event.starts_session and not self._is_result:
            self._collector.put(Restart(event.step))
        if event.config:
            self._collector.put(Configuration(event.config))
        for scalar in event.scalars:
            self._add(event.step, event.time, scalar)
        if len(event.scalars) == 1 and event.scalars[0].position and len(self._layouts) < 10_000:
            self._learn(data, event.summary_start, end, event.scalars[0])

    def _add(self, step: int, time: float, scalar: Scalar) -> None:
        series = self._collector.buffer(scalar.name)
        if self._is_result and step <= series.last_step:
            return
        if step < series.last_step:
            self._collector.put(Restart(step, scalar.name))
        self._collector.add(scalar.name, step, time, scalar.value)

    def _learn(self, data: bytes, start: int, end: int, scalar: Scalar) -> None:
        hole = scalar.position - start
        layout = self._layouts.setdefault(end - start, (hole, {}))
        if layout[0] == hole and len(layout[1]) < 100_000:
            around = data[start : scalar.position] + data[scalar.position + 4 : end]
            layout[1][around] = self._collector.buffer(scalar.name)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
