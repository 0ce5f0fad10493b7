"""The log of another tool as a stream of events, so that a viewer follows it like a run directory.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import math
import sys
import time
from array import array
from pathlib import Path

from epochtop.engine.protocol.events import (
    AnyEvent,
    Configured,
    Failed,
    Logged,
    ScriptEnded,
    ScriptStarted,
    Warned,
    is_unix_time,
)
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import BadLine
from epochtop.engine.runs.series import SUMMARIZED, packed, summary_of
from epochtop.formats.records import Batch, Configuration, Ended, Record, Restart
from epochtop.formats.scan import log_at

LOOK_S = 0.5
"""Seconds between two looks for new values, once everything was read."""
WINDOW_STEPS = 1024
"""Most steps of one event."""
WINDOW_S = 60.0
"""Longest time of one event, so that the time of each value is known well enough."""
QUIET_S = 60.0
"""Least time without a change after which a log counts as ended, if it does not say so itself."""
LONGEST_QUIET_S = 3600.0
GAPS = 5
"""A log counts as growing for this many times the usual time between two steps."""


class Activity:
    """Whether a log still grows, from the time of its last change and the pace of its steps."""

    def __init__(self) -> None:
        self.first = math.inf
        """Unix time of the first value; infinity while unknown."""
        self.last = -math.inf
        """Unix time of the last value; minus infinity while unknown."""
        self.steps = 0
        """Highest step plus 1."""
        self._lowest = math.inf

    def add(self, batch: Batch) -> None:
        """Take in values."""
        self.steps = max(self.steps, batch.steps[-1] + 1)
        self._lowest = min(self._lowest, batch.steps[0])
        if is_unix_time(batch.times[-1]):
            self.last = max(self.last, batch.times[-1])
        if is_unix_time(batch.times[0]):
            self.first = min(self.first, batch.times[0])

    @property
    def seconds(self) -> float:
        """Time from the first value to the last; 0 while unknown."""
        return max(0.0, self.last - self.first) if math.isfinite(self.first) else 0.0

    def quiet_s(self) -> float:
        """Seconds without a change after which the log counts as ended."""
        steps = self.steps - self._lowest
        pace = self.seconds / (steps - 1) if 1 < steps < math.inf else 0.0
        return min(max(QUIET_S, GAPS * pace), LONGEST_QUIET_S)

    def is_growing(self, modified: float, now: float) -> bool:
        """Whether the last value, and the last change of the file, are recent enough. Both arguments are Unix times.

        A change that lies further in the future than clocks of two machines differ was made before a clock was moved back.
        """
        newest = min(modified, self.last) if math.isfinite(self.last) else modified
        return -LONGEST_QUIET_S < now - newest < self.quiet_s()


class OpenedFollower:
    """Reads a log as events, like :class:`epochtop.engine.runs.reader.Follower` reads a run directory.

    A log that was quiet for a while ends with `ScriptEnded`; if it grows again, it continues with `ScriptStarted`.
    """

    def __init__(self, path: Path) -> None:
        """Raises Invalid if there is no log at `path`."""
        log = log_at(path)
        if log is None:
            raise Invalid("", f"{path} is neither a run nor a log in a format that epochtop reads")
        self.path, self.log = path, log
        self._follower = log.follow()
        self._activity = Activity()
        self._started, self._ended = False, False
        self._end: Ended | None = None
        """What the log says about its end."""
        self._damaged = 0
        self._problem = ""
        self._next_look = 0.0

    def read(self) -> list[AnyEvent | BadLine]:
        """The next events; empty if there are none. Never waits longer than the file system."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        try:
            while records := self._follower.read():
                steps = self._activity.steps
                self._take_in(records)
                events = [*self._continue(records, steps), *self._events(records), *self._report_damage()]
                if events:
                    return events
        except OSError as error:
            self._next_look = now + LOOK_S
            return self._report(f"{self.path}: {error.strerror or error}")
        self._next_look = now + LOOK_S
        return [*self._start(), *self._report_damage(), *self._end_if_quiet()]

    def close(self) -> None:
        """Close the files."""
        self._follower.close()

    @property
    def steps(self) -> int:
        """Highest step so far, plus 1."""
        return self._activity.steps

    @property
    def seconds(self) -> float:
        """Time from the first value to the last; 0 if the log has no times."""
        return self._activity.seconds

    @property
    def last_time(self) -> float:
        """Unix time of the last value, or of the last change if the log has no times."""
        last = self._activity.last
        return last if math.isfinite(last) else self._follower.modified()

    # --- beginning and end -------------------------------------------------------------------------------

    def _start(self) -> list[AnyEvent | BadLine]:
        """The first event of the run, if it is due."""
        if self._started:
            return []
        self._started = True
        return [ScriptStarted(time=self._begin(), pid=0)]

    def _continue(self, records: list[Record], steps: int) -> list[AnyEvent | BadLine]:
        """The event that begins the run, or continues it after an end with step `steps`, before new values."""
        if not self._started or not self._ended or not any(isinstance(record, Batch) for record in records):
            return self._start()
        self._ended = False
        return [ScriptStarted(time=self._follower.modified(), pid=0, step=steps)]

    def _take_in(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, Batch):
                self._activity.add(record)
                self._end = None
            elif isinstance(record, Ended):
                self._end = record

    def _begin(self) -> float:
        first = self._activity.first
        return first if math.isfinite(first) else self._follower.modified()

    def _end_if_quiet(self) -> list[AnyEvent | BadLine]:
        """The last event, if the log says that the run has ended, or has not grown for long."""
        modified = self._follower.modified()
        quiet = not self._activity.is_growing(modified, time.time())
        if self._ended or not (self._end is not None or quiet):
            return []
        self._ended = True
        end, activity = self._end, self._activity
        if end is not None:
            moment = end.time if is_unix_time(end.time) else modified
            if end.outcome == "failed":
                return [Failed(time=moment, step=activity.steps, message=end.reason or "the log says that it failed")]
            outcome, reason, status = end.outcome, end.reason, end.exit_status
        else:
            moment, outcome, status = modified, "finished", None
            reason = "the log does not grow; it does not say how the run ended"
        return [
            ScriptEnded(
                time=moment,
                outcome="stopped" if outcome == "stopped" else "finished",
                reason=reason,
                exit_status=status,
                steps=activity.steps,
                seconds=activity.seconds,
            )
        ]

    # --- problems ----------------------------------------------------------------------------------------

    def _report(self, problem: str) -> list[AnyEvent | BadLine]:
        if problem == self._problem:
            return []
        self._problem = problem
        return [Warned(message=problem)]

    def _report_damage(self) -> list[AnyEvent | BadLine]:
        new = self._follower.damaged - self._damaged
        if new <= 0:
            return []
        self._damaged += new
        return [Warned(message=f"{self.path}: {new:,} damaged {'record was' if new == 1 else 'records were'} skipped")]

    # --- values ------------------------------------------------------------------------------------------

    def _events(self, records: list[Record]) -> list[AnyEvent | BadLine]:
        events: list[AnyEvent | BadLine] = []
        batches: list[Batch] = []
        for record in records:
            if isinstance(record, Batch):
                batches.append(record)
                continue
            events += self._windows(batches)
            batches = []
            if isinstance(record, Configuration):
                events.append(Configured(values=record.values))
            elif isinstance(record, Restart) and not record.series:
                events.append(ScriptStarted(time=self._begin(), pid=0, step=max(0, record.step)))
        return [*events, *self._windows(batches)]

    def _windows(self, batches: list[Batch]) -> list[Logged]:
        """Events of these batches. Series with the same steps share them."""
        groups: dict[bytes, list[Batch]] = {}
        for batch in batches:
            groups.setdefault(batch.steps.tobytes(), []).append(batch)
        windows: list[tuple[float, Logged]] = []
        for group in groups.values():
            newest = -math.inf
            for first, end in _cuts(group[0]):
                window = self._window(group, first, end)
                newest = max(newest, window.time)  # keeps the order within the group if the clock went back
                windows.append((newest, window))
        windows.sort(key=lambda entry: entry[0])
        return [window for _, window in windows]

    def _window(self, group: list[Batch], first: int, end: int) -> Logged:
        steps = group[0].steps[first:end]
        times = [batch.times[end - 1] for batch in group]
        moment = max((time for time in times if is_unix_time(time)), default=math.nan)
        if math.isnan(moment):
            moment = self._begin()
        contiguous = steps[-1] - steps[0] == end - first - 1 and all(
            step == number for number, step in enumerate(steps, steps[0])
        )
        parts = {batch.series: batch.values[first:end] for batch in group}
        return Logged(
            time=moment,
            seconds=max(0.0, moment - self._begin()),
            first_step=steps[0],
            count=end - first,
            steps=None if contiguous else _little_endian(steps),
            values={name: _packed(values) for name, values in parts.items()},
            summaries={name: summary_of(values) for name, values in parts.items()} if end - first >= SUMMARIZED else {},
        )


def _cuts(batch: Batch) -> list[tuple[int, int]]:
    """Where a batch is cut into windows of at most WINDOW_STEPS steps and WINDOW_S seconds."""
    times, count = batch.times, len(batch.steps)
    span = times[-1] - times[0]
    if count <= WINDOW_STEPS and not span > WINDOW_S:
        return [(0, count)]
    cuts, first = [], 0
    for place in range(1, count):
        if place - first >= WINDOW_STEPS or times[place] - times[first] > WINDOW_S:
            cuts.append((first, place))
            first = place
    return [*cuts, (first, count)]


def _packed(values: array[float]) -> bytes:
    """Values as a window stores them: float32 unless that changes one."""
    single = array("f", values)
    same = all(
        narrow == value or (narrow != narrow and value != value) for narrow, value in zip(single, values, strict=True)
    )
    return packed(values, double=not same)


def _little_endian(steps: array[int]) -> bytes:
    if sys.byteorder == "big":
        steps = array("q", steps)
        steps.byteswap()
    return steps.tobytes()
