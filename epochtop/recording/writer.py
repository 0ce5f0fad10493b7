"""The thread that writes a run: turns logged values into events, reads commands, keeps the heartbeat.

It is a raw thread, because importing `threading` takes milliseconds and because such a thread never delays the end of the
process. Nothing that it meets may reach the script: every failure is reported once, and values wait in bounded memory.
Imports built-in modules only.
"""

from __future__ import annotations

import _thread
import os
import time

from epochtop.configuration import is_present
from epochtop.recording import directory, endings, forks
from epochtop.recording.json_text import encode_line
from epochtop.recording.log import DISK_SPACE, EventLog
from epochtop.recording.series import FiniteWatch, Numbering, Window, logged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import IO, Any

    from epochtop.notifications.scripts import ScriptNotifier
    from epochtop.recording.later.control import Control, Setting
    from epochtop.recording.later.facts import LateFacts
    from epochtop.recording.reports import Reports
    from epochtop.recording.series import Entry
else:
    from _collections import deque  # importing `collections` takes a millisecond

INTERVAL_S = 0.1
"""Seconds between two windows: what a killed process loses at most."""
QUEUE_ENTRIES = 1 << 18
"""Most calls of `log()` that wait in memory for the writer; later ones are dropped and counted."""
LOOK_S = 1.0
"""Seconds between two looks at whether the run directory still exists."""
LATE_S = 0.5
"""Seconds after the start when facts are collected that take a while."""
RETRY_S = 5.0
"""Seconds between two attempts to create a run directory."""
DEVICE_S = 5.0
"""Longest time that an end waits for values that a device still computes."""
HANGING_S = 0.15
"""Time after which a disk that takes no data hangs."""
DRAIN_ROWS = 8192
"""Most calls of `log()` in one window."""


class Writer:
    """Writes one run directory. The script's threads append to `entries` and `events` and never wait."""

    def __init__(
        self, home: str, stem: str, record: bytes, report: Reports, on_control: Callable[[], None] = lambda: None
    ) -> None:
        """The run directory is created in the folder `home`; its id begins with `stem`. `record` is the content of run.json.

        `report` tells the user about a problem. `on_control` is called when `is_quiet` may have changed.
        """
        self._home, self._stem, self._record, self._report = home, stem, record, report
        self.entries: deque[Entry] = deque()
        """Calls of `log()`: a step, COMMITTED or UNCOMMITTED, and values by series. Hooks add :class:`UsualSteps`."""
        self.events: deque[dict[str, Any]] = deque()
        """Further events to write. A step of None becomes the next step."""
        self.on_control = on_control
        self.settings: dict[str, Setting] = {}
        """Settings that the script has declared."""
        self._control: Control | None = None
        self.path: str | None = None
        """The run directory; None as long as it cannot be created."""
        self.dropped = 0
        """Number of values that were dropped."""
        self.last: dict[str, float] = {}
        """Newest value of every series."""
        self._finite = FiniteWatch()
        self._numbering = Numbering()
        self.seconds_before = 0.0
        """Duration of a continued run before this process."""
        self.is_guest = False
        """Whether another process records the start and the end of the run."""
        self._continues = False
        self._started_at = time.monotonic()
        self._lock: IO[bytes] | None = None
        self._log: EventLog | None = None
        self._heartbeat: directory.Heartbeat | None = None
        self._disk_since = float("inf")
        """When the present operation on the disk began; infinite if there is none."""
        self._sent: deque[Window] = deque()
        self._waiting_rows = 0
        self._reported_drops = 0
        self._facts: LateFacts | None = None
        self._facts_due_at = float("inf")
        self._notifier: ScriptNotifier | None = None
        self._next_look = self._next_try = 0.0
        self._is_removed = False
        self._final: dict[str, Any] | None = None
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._ended = _thread.allocate_lock()
        self._working = forks.work_lock()

    # --- called by the script ------------------------------------------------------------------------------

    def start(self) -> None:
        """Create the run directory and begin to write."""
        self._open()
        self._ended.acquire()
        _thread.start_new_thread(self._work, ())

    def continue_run(self, path: str, lock: IO[bytes], steps: int, seconds: float) -> None:
        """Write to an earlier run, which this process has locked and which ended after this many steps and seconds."""
        self.path, self._lock, self._continues = path, lock, True
        self._numbering.next = self._numbering.end = steps
        self.seconds_before = seconds

    def next_step(self) -> int:
        """Step of the next value that names none, with what waits in the queue."""
        return self._numbering.next_after(list(self.entries))

    @property
    def seconds(self) -> float:
        """Time since the start, without pauses."""
        paused_s = self._control.paused_s if self._control is not None else 0.0
        return self.seconds_before + time.monotonic() - self._started_at - paused_s

    @property
    def control(self) -> Control:
        """What viewers ask of the script. It is created after the first interval, because a script waits for every import."""
        if self._control is None:
            from epochtop.recording.later.control import Control

            control = Control(self.events.append, lambda: self.on_control(), self.settings)
            self._control = self.__dict__.setdefault("_only_control", control)  # another thread may create one
        return self._control

    @property
    def is_quiet(self) -> bool:
        """Whether `log()` has nothing to obey."""
        return self._control is None or self._control.is_quiet

    @property
    def stopped_by(self) -> str | None:
        """Who asked the script to stop; None if nobody has."""
        return self._control.stopped_by if self._control is not None else None

    def wake(self) -> None:
        """Let the thread write now."""
        try:
            self._wake.release()
        except RuntimeError:  # it is awake already
            pass

    def close(self, final: dict[str, Any], deadline: float | None) -> bool:
        """Write everything, and `final` as the last event. False if the disk hangs at `deadline` of the monotonic clock.

        Waits up to DEVICE_S longer for values that are being encoded or computed. A deadline of None does not wait.
        """
        self._final = final
        self.wake()
        if deadline is None:
            return False
        while not self._ended.acquire(timeout=0.02):
            now = time.monotonic()
            hangs = now - self._disk_since > HANGING_S
            if now >= deadline and (hangs or now >= deadline + DEVICE_S):
                return False
        self._ended.release()
        if self._notifier is not None:
            self._notifier.wait()
        return True

    def abandon(self) -> None:
        """Leave the run to the parent, in a forked process: closes the files, so that the lock is not held here."""
        self._close_files()
        if self._log is not None:
            self._log.abandon()
        self.entries, self.events = deque(), deque()

    # --- the thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._wake.acquire(timeout=INTERVAL_S) or self._final is None:
                self._guard(self._tick)
            self._guard(self._write_rest)
            self._guard(self._write_end)
        finally:
            self._ended.release()
        endings.die_if_signaled()

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            with self._working:
                act()
        except Exception as error:
            self._report(f"internal error: {type(error).__name__}: {error}")

    def _tick(self) -> None:
        endings.check_signals()
        if self._log is None and time.monotonic() >= self._next_try:
            self._on_disk(self._open)
        if self._heartbeat is not None and not self._is_removed:
            self._on_disk(self._heartbeat.beat)
        self._drain()
        self._write_ready()
        if self._log is not None and self.path is not None:
            self._on_disk(self.control.look, self.path)
        self._write_events()
        self._on_disk(self._look_at_folder)
        if time.monotonic() >= self._facts_due_at:
            self._collect_facts()
        if self._notifier is not None:
            self._notifier.tick()

    def _collect_facts(self) -> None:
        """Find what takes a while, and set space aside for the last line."""
        if self._facts is None:
            from epochtop.recording.later.facts import LateFacts

            assert self._log is not None
            assert self.path is not None
            self._log.make_reserve()
            self._facts = LateFacts(self.path)
        if not self._facts.is_complete:
            self._facts.collect()

    def _on_disk(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Let :meth:`close` know that the disk is at work, which may hang."""
        self._disk_since = time.monotonic()
        try:
            return act(*arguments)
        finally:
            self._disk_since = float("inf")

    def _open(self) -> None:
        self._next_try = time.monotonic() + RETRY_S
        try:
            if self.path is None:
                directory.make_folder(self._home)
                self.path, self._lock = directory.create(self._home, self._stem, self._record)
            log = EventLog(self.path, self._report, reserve=False)
            if self._continues:
                self.control.open(self.path, from_now=True)
            self._heartbeat = directory.Heartbeat(self.path)
            self._facts_due_at = time.monotonic() + LATE_S
        except OSError as error:
            self._report(f"cannot record a run in {self._home}: {error.strerror or error}; values wait in memory")
            return
        self._log = log
        if is_present():
            from epochtop.notifications.scripts import script_notifier

            self._notifier = script_notifier(self.path, self.events.append, self.is_guest)
        if not self.is_guest:
            now, step = round(time.time(), 3), self._numbering.next
            self._append({"type": "ScriptStarted", "time": now, "pid": os.getpid(), "step": step})

    # --- values --------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Take what was logged and give it steps."""
        take = self.entries.popleft
        entries = [take() for _ in range(len(self.entries))]
        if not entries:
            return
        now, seconds = time.time(), self.seconds
        columns = self._numbering.usual_columns(entries)
        if columns is not None:
            windows = [Window([], now, seconds, columns)]
        else:
            rows = self._numbering.rows(entries)
            parts = (rows[first : first + DRAIN_ROWS] for first in range(0, len(rows), DRAIN_ROWS))
            windows = [Window(part, now, seconds) for part in parts]
        self._sent.extend(windows)
        self._waiting_rows += sum(window.steps for window in windows)

    def _write_ready(self) -> None:
        """Write the windows whose values are known, in order."""
        for window in self._sent:
            window.send(self._report)
        while self._sent and self._log is not None and self._sent[0].is_ready:
            window = self._sent.popleft()
            self._waiting_rows -= window.steps
            if self._log.congested:
                self.dropped += window.discard()
                self._on_disk(self._log.flush)
                continue
            self._write_window(window)
        if self._log is not None and self._log.error is not None:
            self._on_disk(self._log.flush)
        while self._sent and self._waiting_rows > QUEUE_ENTRIES:
            lost = self._sent.popleft()
            self._waiting_rows -= lost.steps
            self.dropped += lost.discard()

    def _write_window(self, window: Window) -> None:
        columns = window.columns(self.last, self._report)
        for event in logged(columns, window.time, window.seconds):
            self._append(event)
        self._finite.add(columns)
        if self._notifier is not None:
            self._notifier.values(self._numbering.end, columns)

    # --- events --------------------------------------------------------------------------------------------

    def _write_events(self) -> None:
        while self._log is None and len(self.events) > QUEUE_ENTRIES:
            self.events.popleft()
        while self._log is not None and self.events:
            event = self.events.popleft()
            if event.get("step", 0) is None:
                event["step"] = self._numbering.position
            self._append(event)

    def _append(self, event: dict[str, Any]) -> None:
        assert self._log is not None
        if self._notifier is not None:
            self._notifier.observe(event)
        if self._is_removed:
            self._log.hold(encode_line(event))
            return
        self._on_disk(self._log.append, encode_line(event))
        if self._log.error is None and self.dropped > self._reported_drops:
            self._report_drops()

    def _report_drops(self) -> None:
        assert self._log is not None
        lost, self._reported_drops = self.dropped - self._reported_drops, self.dropped
        message = f"{lost} values were dropped while the disk refused them"
        self._log.append(encode_line({"type": "Warned", "message": message, "code": DISK_SPACE}))
        self._report(message)

    def _look_at_folder(self) -> None:
        """Notice that the run directory was deleted, or that it is there again."""
        if self._log is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        if not self._is_removed and self._log.is_removed:
            self._is_removed = True
            self._report(f"{self.path} was deleted; values stay in memory until the folder is there again")
        elif self._is_removed and self._log.reopen():
            self._restore()
            self._is_removed = False
            self._log.flush()

    def _restore(self) -> None:
        """Make a folder that was deleted and is there again a run directory."""
        assert self.path is not None
        lock = directory.restore(self.path, self._record)
        self.control.open(self.path, from_now=True)
        if self._lock is not None:
            self._lock.close()
        self._lock = lock

    # --- the end ---------------------------------------------------------------------------------------------

    def _write_rest(self) -> None:
        """Write everything that waits, if the device computes it in time."""
        give_up_at = time.monotonic() + DEVICE_S
        self._drain()
        self._write_ready()
        while self._sent and self._log is not None and time.monotonic() < give_up_at:
            time.sleep(0.002)
            self._write_ready()
        self._write_events()

    def _write_end(self) -> None:
        """Write the last event and close all files."""
        if self._facts is not None:
            self._facts.cancel()
        assert self._final is not None
        final = self._last_event(self._final)
        if self._log is not None:
            line = encode_line(final)
            self._disk_since = time.monotonic()
            if not self._is_removed and not self.is_guest:
                self._log.append(line)
                if self._log.error is not None:
                    self._log.write_last(line)
            if not self._log.close():
                self._report("the disk refused the last values of the run")
        self._close_files()
        if self._notifier is not None:
            self._notifier.end(final)

    def _close_files(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._lock is not None:
            self._lock.close()

    def _last_event(self, final: dict[str, Any]) -> dict[str, Any]:
        event = {"type": final["type"], "time": round(time.time(), 3), **final}
        if final["type"] == "Failed":
            return {**event, "step": self._numbering.end}
        reason = "; ".join(filter(None, (final.get("reason"), self._finite.describe())))
        figures = {"steps": self._numbering.end, "seconds": round(self.seconds, 6), "dropped": self.dropped}
        return {**event, "reason": reason, **figures}
