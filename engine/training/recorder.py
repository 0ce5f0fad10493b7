"""The thread between the loop and the files: writes events and checkpoints, reads commands.

The loop puts items into a queue and never touches a file, so a slow or hanging disk cannot slow down training. While the
disk is full, losses stay in memory. The last checkpoints of a run are tried again for a while; a run without them is unsaved.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from torch import Tensor

from epochtop.engine.device.transfer import Downloads
from epochtop.engine.protocol.commands import AnyCommand, Stop
from epochtop.engine.protocol.events import (
    CHECKPOINT_DELAYED,
    CHECKPOINT_FAILED,
    DISK_SPACE,
    AnyEvent,
    Concluded,
    Failed,
    Finished,
    Saved,
    Warned,
    encode,
)
from epochtop.engine.protocol.quantities import format_seconds
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.heartbeat import Heartbeat
from epochtop.engine.runs.log import EventLog
from epochtop.engine.runs.writer import Inbox
from epochtop.engine.training import checkpoint
from epochtop.engine.training.clock import Suspension
from epochtop.engine.training.outcome import UnsavedCheckpoint, unsaved

POLL_S = 0.02
"""Interval between two looks for commands. A look is one read of an open file; 50 per second take 0.02 % of a core."""
PATIENCE_S = 30.0
"""How long a run waits at its end for a full disk."""
RETRY_S = 0.5
"""Interval between two attempts to write to a full disk."""
MOST_PENDING = 3
"""Most checkpoints that may wait for the disk before a loop that keeps every one of them waits too."""
LAST_EVENTS = (Finished, Failed, Concluded)
"""Events that nothing may follow."""
REPEAT_S = 60.0
"""Least time between two warnings about checkpoints of one kind that cannot be written."""


@dataclass(frozen=True)
class PendingSave:
    """A checkpoint to write. Its tensors are complete, on the host or a GPU, and must not be changed any more."""

    kind: checkpoint.Kind
    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]
    final: bool = False
    """Whether it holds the run's result, so that the run is unsaved without it."""
    processed: threading.Event = field(default_factory=threading.Event, compare=False)
    """Set when it has been written or refused, so that its tensors no longer wait in memory."""


class PendingSaves:
    """Checkpoints that the loop has handed over and the recorder has not processed. Each holds a copy of the whole state."""

    def __init__(self) -> None:
        self.newest: tuple[int, threading.Event] | None = None
        """Step of the newest state to resume from, and when it is processed."""
        self.requested = False
        """Whether a request waits until that state is processed."""
        self._waiting: list[threading.Event] = []

    def add(self, processed: threading.Event) -> None:
        """Count a checkpoint until it is `processed`."""
        self._waiting = [event for event in self._waiting if not event.is_set()] + [processed]

    @property
    def full(self) -> bool:
        """Whether as many checkpoints wait as memory may hold."""
        return sum(not event.is_set() for event in self._waiting) >= MOST_PENDING

    def defers(self, step: int) -> bool:
        """Whether a request to save the state of `step` must wait. A state that waits already needs no other request."""
        waiting = self.newest is not None and not self.newest[1].is_set()
        self.requested = waiting and self.newest is not None and self.newest[0] != step
        return waiting


class Observer(Protocol):
    """What sees the events of a run as they are written. Called by the recorder's thread; must never wait or raise."""

    def observe(self, event: AnyEvent) -> None:
        """An event is written."""

    def tick(self) -> None:
        """Look at the clock; called 50 times per second."""

    def close(self) -> None:
        """The log is complete and closed. Called by the thread that closes the recorder."""


class Recorder:
    """Writes events.jsonl and checkpoints of one run and reads its commands.jsonl while its engine runs.

    `commands` receives the commands of viewers. Items put before :meth:`start` are written after it.
    """

    def __init__(self, run: Path, spec: RunSpec, commands_from: int = 0, observer: Observer | None = None) -> None:
        """Ignores the commands in the first `commands_from` bytes: the run had ended then, and they are out of date.

        `observer` sees every event.
        """
        self.commands: SimpleQueue[AnyCommand] = SimpleQueue()
        self.stop_requested = threading.Event()
        """Set when a command Stop has arrived; also by a signal that stops the run."""
        self.suspension = Suspension()
        """Time for which the process was stopped by a signal."""
        self.run, self._spec = run, spec
        self._on_command: Callable[[], None] = lambda: None
        self._items: SimpleQueue[AnyEvent | PendingSave | threading.Event | None] = SimpleQueue()
        self._observer = observer
        self._log = EventLog(run)
        self._inbox = Inbox(run, commands_from)
        self._heartbeat = Heartbeat(run)
        self._last_line = b""
        self._downloads = Downloads()
        self._warned_at: dict[checkpoint.Kind, float] = {}
        """When a failed checkpoint of each kind was last reported; successes remove it."""
        self._refused_best: PendingSave | None = None
        """The newest best weights, if the disk has refused them."""
        self._give_up_at: float | None = None
        """When the run stops waiting for the disk; None until its last checkpoints are refused."""
        self._unsaved: list[UnsavedCheckpoint] = []
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    @property
    def congested(self) -> bool:
        """Whether the disk has refused so much that training must wait. May be asked from any thread."""
        return self._log.congested

    @property
    def unsaved(self) -> bool:
        """Whether a final checkpoint could not be written."""
        return bool(self._unsaved)

    def start(self, on_command: Callable[[], None]) -> None:
        """Begin to write and to read commands; `on_command` is called from the recorder's thread when one arrives."""
        self._on_command = on_command
        self._heartbeat.start()
        self._thread.start()

    def put(self, item: AnyEvent | PendingSave) -> None:
        """Hand over an event or a checkpoint; returns at once."""
        self._items.put(item)

    def restart(self, spec: RunSpec, patience_s: float = PATIENCE_S) -> bool:
        """Write all items and use `spec` for checkpoints from now on. False if the disk refuses them."""
        written = threading.Event()
        self._items.put(written)
        done = written.wait(patience_s) and self._log.error is None
        self._spec = spec
        return done

    def close(self) -> bool:
        """Write all items and sync them to the disk. False if the disk refuses the last one."""
        self._items.put(None)
        self._thread.join()
        self._inbox.close()
        self._heartbeat.close()
        written = self._log.close()
        if self._observer is not None:
            self._observer.close()
        return written

    def _work(self) -> None:
        while True:
            try:
                item = self._items.get(timeout=POLL_S)
            except Empty:
                self._log.flush()
            else:
                if item is None:
                    self._finish()
                    return
                if isinstance(item, threading.Event):
                    self._log.flush()
                    self._log.sync()
                    item.set()
                else:
                    self._process(item)
            self.suspension.tick()
            self._read_commands()
            if self._observer is not None:
                self._observer.tick()

    def _process(self, item: AnyEvent | PendingSave) -> None:
        if isinstance(item, Finished):
            self._save_refused_best(final=True)
            self._write(unsaved(item, self.run, self._unsaved, self._resumes_at()) if self._unsaved else item)
            if item.outcome != "stopped" and not self._unsaved:
                checkpoint.remove_previous(self.run)  # nothing will continue from it
        elif isinstance(item, PendingSave):
            self._save(replace(item, tensors=self._downloads(item.tensors)))
            item.processed.set()
            if item.kind == checkpoint.LAST:
                self._save_refused_best(final=False)
        else:
            self._write(item)

    # --- checkpoints -------------------------------------------------------------------------------------

    def _save_refused_best(self, final: bool) -> None:
        """Try again to write the best weights, which the loop hands over only once."""
        save, self._refused_best = self._refused_best, None
        if save is not None:
            self._save(replace(save, final=final))

    def _save(self, save: PendingSave) -> None:
        refusal = self._try_save(save)
        if refusal is not None:
            self._warn(save, refusal)
        while refusal is not None and save.final and not self._patience_is_over():
            time.sleep(RETRY_S)
            refusal = self._try_save(save)
        if save.kind == checkpoint.BEST:
            self._refused_best = save if refusal is not None and not save.final else None
        if refusal is None:
            self._warned_at.pop(save.kind, None)
            self._write(Saved(step=save.step, kind=save.kind))
            self._log.sync()
        elif save.final:
            size = sum(tensor.nbytes for tensor in save.tensors.values())
            self._unsaved.append(UnsavedCheckpoint(save.kind, save.step, size, reason_of(refusal), PATIENCE_S))

    def _try_save(self, save: PendingSave) -> OSError | None:
        """Write a checkpoint. Returns why the disk refuses it; None if it is written."""
        self._log.flush()
        if self._log.error is not None:  # a checkpoint must never be ahead of the log: a run needs both to continue
            return self._log.error
        self._log.sync()
        try:
            checkpoint.write(self.run, save.kind, save.step, self._spec, save.tensors, save.values)
        except OSError as error:
            return error
        return None

    def _warn(self, save: PendingSave, refusal: OSError) -> None:
        now = time.monotonic()
        if not save.final and now - self._warned_at.get(save.kind, -REPEAT_S) < REPEAT_S:
            return
        self._warned_at[save.kind] = now
        plan = f"; the run tries again for {format_seconds(PATIENCE_S)}" if save.final else ""
        if self._log.error is not None:
            message = f"checkpoint {save.kind!r} at step {save.step} waits for disk space{plan}"
            self._write(Warned(message=message, code=CHECKPOINT_DELAYED))
        else:
            message = f"checkpoint {save.kind!r} at step {save.step} was not written: {reason_of(refusal)}{plan}"
            self._write(Warned(message=message, code=CHECKPOINT_FAILED))

    def _patience_is_over(self) -> bool:
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + PATIENCE_S
        return time.monotonic() >= self._give_up_at

    def _resumes_at(self) -> int | None:
        """The step of the newest checkpoint that the run can continue from; None if there is none."""
        return checkpoint.newest_step(self.run, (checkpoint.LAST, checkpoint.PREVIOUS))

    # --- the log -----------------------------------------------------------------------------------------

    def _write(self, event: AnyEvent) -> None:
        if self._observer is not None:
            self._observer.observe(event)
        self._last_line = encode(event) + b"\n"
        if self._log.append(self._last_line) and not isinstance(event, LAST_EVENTS):
            assert self._log.error is not None
            message = f"the disk refused the log ({reason_of(self._log.error)}): losses waited in memory for space"
            self._log.append(encode(Warned(message=message, code=DISK_SPACE)) + b"\n")

    def _finish(self) -> None:
        self._log.flush()
        while self._log.error is not None and not self._patience_is_over():
            time.sleep(RETRY_S)
            self._log.flush()
        if self._log.error is not None:
            self._log.write_last(self._last_line)
        self._log.sync()

    def _read_commands(self) -> None:
        try:
            commands = self._inbox.read()
        except OSError:  # a stale handle of a network disk; the next read may succeed
            return
        for command in commands:
            self.commands.put(command)
            if isinstance(command, Stop):
                self.stop_requested.set()
        if commands:
            self._on_command()


def reason_of(error: OSError) -> str:
    """An error in words."""
    return error.strerror or str(error)
