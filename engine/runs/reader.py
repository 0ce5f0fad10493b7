"""Reading a run directory: its record, its events as they arrive, and whether its process is alive.

A reader never fails on a line that is incomplete, corrupt or from a newer version. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from epochtop.engine.protocol.events import UNREADABLE, AnyEvent, Logged, decode_event
from epochtop.engine.protocol.record import RunRecord, TaskRecord, decode_record, decode_task_record
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.heartbeat import is_alive as is_alive
from epochtop.engine.runs.paths import EVENTS, OUTPUT, RECORD, TASK
from epochtop.engine.runs.regular import open_file, read_regular, reason_of


class BadLine(msgspec.Struct, frozen=True):
    """A line of events.jsonl that was skipped because it cannot be read."""

    number: int
    """Line number, counted from 1."""
    reason: str
    """Why the line cannot be read."""


class SkippedLines:
    """Words for the lines of one log that were skipped: for the first, the tenth, the hundredth, and so on.

    A damaged log may have a million of them.
    """

    def __init__(self) -> None:
        self.count = 0

    def report(self, line: BadLine) -> str:
        """What to say about the next line; empty for most."""
        self.count += 1
        if self.count == 1:
            return f"{EVENTS}, line {line.number}: skipped, cannot be read: {line.reason}"
        if str(self.count).rstrip("0") == "1":
            return f"{EVENTS}: {self.count:,} lines skipped so far, the last one is line {line.number}: {line.reason}"
        return ""


class Follower:
    """Reads the events of a run, from the first one, then as they arrive.

    A last line without a newline is still being written and waits for the next call. Any other unreadable line becomes a
    :class:`BadLine`. Nothing is read twice.
    """

    def __init__(self, run: Path) -> None:
        self.path = run
        self._file: IO[bytes] | None = None
        self._place = 0
        """Where to continue after :meth:`pause`."""
        self._rest = b""
        self._line = 0
        self._refused = False
        """Whether the file could not be read, which is reported once."""

    def read(self) -> list[AnyEvent | BadLine]:
        """The next complete events, about 1 MiB of them, or one longer event; empty if there are none."""
        try:
            lines = self._lines()
        except FileNotFoundError:
            return []
        except OSError as error:
            reported, self._refused = self._refused, True
            return [] if reported else [BadLine(self._line + 1, f"{EVENTS} {reason_of(error)}")]
        events: list[AnyEvent | BadLine] = []
        for line in lines:
            event = self._decode(line)
            events.append(event)
            if isinstance(event, Logged) and (problem := damage_of(event)):
                events.append(BadLine(self._line, problem))
        return events

    def _lines(self) -> list[bytes]:
        """The next complete lines. Raises OSError."""
        if self._file is None:
            self._file = open_file(self.path / EVENTS)
            self._file.seek(self._place)
        lines: list[bytes] = []
        while not lines:
            new = self._file.read(READ_BYTES)
            if not new:
                return []
            *lines, self._rest = (self._rest + new).split(b"\n")
        return lines

    def _decode(self, line: bytes) -> AnyEvent | BadLine:
        self._line += 1
        try:
            return decode_event(line)
        except UNREADABLE as error:
            return BadLine(self._line, str(error))

    def read_all(self) -> Iterator[AnyEvent | BadLine]:
        """All events that are complete now."""
        while batch := self.read():
            yield from batch

    def pause(self) -> None:
        """Close the file; the next read opens it again and continues at the same place."""
        if self._file is not None:
            self._place = self._file.tell()
            self.close()
            self._file = None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_events(run: Path) -> list[AnyEvent | BadLine]:
    """All events of a run that are complete now."""
    follower = Follower(run)
    try:
        return list(follower.read_all())
    finally:
        follower.close()


def damage_of(event: Logged) -> str:
    """Which series of a window have another number of bytes than the window has steps; empty if none has.

    Readers leave such series out.
    """
    singles, doubles = 4 * event.count, 8 * event.count
    if event.steps is not None and len(event.steps) != doubles:
        return f"the window has {event.count:,} steps, but {len(event.steps):,} bytes of step numbers instead of {doubles:,}"
    wrong = [name for name, values in event.values.items() if len(values) != singles and len(values) != doubles]
    if not wrong:
        return ""
    sizes = f"{len(event.values[wrong[0]]):,} bytes for {event.count:,} steps"
    return (
        f"the window of {wrong[0]!r} has {sizes}{f', and {len(wrong) - 1} others are wrong too' if wrong[1:] else ''}"
    )


def output_tail(run: Path, lines: int = 12) -> str:
    """The last lines that the engine printed; empty if it printed nothing."""
    try:
        with open_file(run / OUTPUT) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def read_record(run: Path) -> RunRecord:
    """The record of a run (run.json). Raises Invalid if it is missing or cannot be read."""
    try:
        return decode_record(read_regular(run / RECORD))
    except FileNotFoundError:
        raise Invalid("", f"{run} is not a run directory: it has no {RECORD}") from None
    except (OSError, *UNREADABLE) as error:
        raise Invalid("", f"{run / RECORD} cannot be read: {reason_of(error)}") from None


def read_task_record(run: Path) -> TaskRecord | None:
    """The record of a run's custom task (task.json); None if it has none. Raises Invalid if it cannot be read."""
    try:
        return decode_task_record(read_regular(run / TASK))
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        raise Invalid(
            "", f"{run / TASK} cannot be read: {reason_of(error)}; delete it to use the task's file as it is now"
        ) from None


READ_BYTES = 1 << 20
"""Bytes read from a log at once, so that memory stays bounded for any length."""
