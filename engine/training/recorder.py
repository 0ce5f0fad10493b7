"""The thread between the loop and the files: writes events and checkpoints, reads commands.

The loop puts items into a queue and never touches a file, so a slow or hanging disk cannot slow down training.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from torch import Tensor

from epochtop.engine.protocol.commands import AnyCommand
from epochtop.engine.protocol.events import CHECKPOINT_DELAYED, CHECKPOINT_FAILED, AnyEvent, Saved, Warned, encode
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import EVENTS
from epochtop.engine.runs.writer import Inbox
from epochtop.engine.terminal.output import write_log
from epochtop.engine.training import checkpoint

POLL_S = 0.02
"""Interval between two looks for commands. A look is one read of an open file; 50 per second take 0.02 % of a core."""
PATIENCE_S = 30.0
"""How long a run waits at its end for a full disk."""


@dataclass(frozen=True)
class Save:
    """A checkpoint to write. Its tensors must not be changed any more."""

    kind: checkpoint.Kind
    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Recorder:
    """Writes events.jsonl and checkpoints of one run and reads its commands.jsonl while its engine runs.

    `commands` receives the commands of viewers. Items put before :meth:`start` are written after it.
    """

    def __init__(self, run: Path, spec: RunSpec, resumed: bool = False) -> None:
        """`resumed` ignores commands that were given before now: the run had ended, and they are out of date."""
        self.commands: SimpleQueue[AnyCommand] = SimpleQueue()
        self._run, self._spec = run, spec
        self._on_command: Callable[[], None] = lambda: None
        self._items: SimpleQueue[AnyEvent | Save | threading.Event | None] = SimpleQueue()
        self._log = os.open(run / EVENTS, os.O_WRONLY | os.O_APPEND)
        self._inbox = Inbox(run, from_now=resumed)
        self._unwritten = b""
        self._refused_by_disk = False
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def start(self, on_command: Callable[[], None]) -> None:
        """Begin to write and to read commands; `on_command` is called from the recorder's thread when one arrives."""
        self._on_command = on_command
        self._thread.start()

    def put(self, item: AnyEvent | Save) -> None:
        """Hand over an event or a checkpoint; returns at once."""
        self._items.put(item)

    def restart(self, spec: RunSpec, patience_s: float = PATIENCE_S) -> bool:
        """Write all items and use `spec` for checkpoints from now on. False if the disk refuses them."""
        written = threading.Event()
        self._items.put(written)
        done = written.wait(patience_s) and not self._unwritten
        self._spec = spec
        return done

    def close(self) -> bool:
        """Write all items and sync them to the disk. False if the disk refuses them."""
        self._items.put(None)
        self._thread.join()
        os.close(self._log)
        self._inbox.close()
        return not self._unwritten

    def _work(self) -> None:
        while True:
            try:
                item = self._items.get(timeout=POLL_S)
            except Empty:
                self._flush()
            else:
                if item is None:
                    self._finish()
                    return
                if isinstance(item, threading.Event):
                    self._flush()
                    self._sync()
                    item.set()
                else:
                    self._process(item)
            self._read_commands()

    def _process(self, item: AnyEvent | Save) -> None:
        if isinstance(item, Save):
            item = self._save(item)
        self._write(item)
        if isinstance(item, Saved):
            self._sync()

    def _save(self, item: Save) -> Saved | Warned:
        self._flush()
        if self._unwritten:  # a checkpoint must never be ahead of the log: a run needs both to continue
            message = f"checkpoint {item.kind!r} at step {item.step} waits for disk space"
            return Warned(message=message, code=CHECKPOINT_DELAYED)
        self._sync()
        try:
            checkpoint.write(self._run, item.kind, item.step, self._spec, item.tensors, item.values)
        except OSError as error:
            message = f"checkpoint {item.kind!r} at step {item.step} was not written: {error}"
            return Warned(message=message, code=CHECKPOINT_FAILED)
        return Saved(step=item.step, kind=item.kind)

    def _write(self, event: AnyEvent) -> None:
        self._unwritten += encode(event) + b"\n"
        self._flush()

    def _flush(self) -> None:
        """Write pending events. While the disk is full, they stay in memory."""
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._log, self._unwritten) :]
            self._refused_by_disk = False
        except OSError as error:
            if not self._refused_by_disk:
                _complain(f"{error}; losses stay in memory until there is space")
            self._refused_by_disk = True

    def _sync(self) -> None:
        try:
            os.fsync(self._log)
        except OSError as error:
            _complain(str(error))

    def _finish(self) -> None:
        patience = time.monotonic() + PATIENCE_S
        self._flush()
        while self._unwritten and time.monotonic() < patience:
            time.sleep(0.5)
            self._flush()
        self._sync()

    def _read_commands(self) -> None:
        try:
            commands = self._inbox.read()
        except OSError:  # a stale handle of a network disk; the next read may succeed
            return
        for command in commands:
            self.commands.put(command)
        if commands:
            self._on_command()


def _complain(message: str) -> None:
    """Write to output.log, which may be on the same full disk."""
    with contextlib.suppress(OSError):
        write_log(f"{EVENTS}: {message}\n")
