"""Runs one command from its start to its end, and keeps the record of its run. Standard library only."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from epochtop.notifications.scripts import script_notifier
from epochtop.recording.directory import Heartbeat
from epochtop.recording.json_text import encode_line
from epochtop.recording.log import EventLog
from epochtop.recording.series import columns_of, logged
from epochtop.supervisor.child import Child
from epochtop.supervisor.commands import CommandReader, is_claimed
from epochtop.supervisor.ending import last_event, shell_status
from epochtop.supervisor.output import Echo, OutputLog
from epochtop.supervisor.printed import Printed, parse

REFRESH_S = 0.1
"""Seconds between two looks for commands, and between two windows of printed values."""
FORWARDED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGALRM,
    signal.SIGHUP,
)  # fmt: skip
"""Signals that are passed on to the command."""
SITE = Path(__file__).parents[1] / "hooks" / "site"
"""Folder with the `sitecustomize` that starts the hooks."""


def hooked_environment(run: Path, has_terminal: bool, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the command: Python processes below it start the hooks, and print at once into a pipe."""
    paths = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(SITE)]
    result = {**environment, "PYTHONPATH": os.pathsep.join([str(SITE), *paths]), "EPOCHTOP_RUN": str(run)}
    if not has_terminal:
        result.setdefault("PYTHONUNBUFFERED", "1")
    return result


class Supervision:
    """One command and its run."""

    def __init__(self, run: Path, child: Child, echoes: Mapping[int, Echo], parses: bool) -> None:
        self.run, self.child = run, child
        self._echoes, self._parses = echoes, parses
        self._log = EventLog(run, lambda message: self._note(f"events.jsonl: {message}"))
        self._output = OutputLog(run / "output.log", self._read_line)
        self._commands = CommandReader(run, child, self._record)
        self._heartbeat = Heartbeat(run)
        self._started_at = time.monotonic()
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._next_step = 0
        self._redrawn: Printed | None = None
        self._signal = ""
        self._notifier = script_notifier(str(run), self._record)

    def run_to_the_end(self, facts: Sequence[dict[str, Any]] = ()) -> int:
        """Record until the command has ended. Returns its exit status, negative for a signal. `facts` are first events."""
        self._forward_signals()
        self._record({"type": "ScriptStarted", "time": time.time(), "pid": self.child.process.pid})
        for event in facts:
            self._record(event)
        refreshed = 0.0
        while not self._turn():
            if time.monotonic() - refreshed >= REFRESH_S:
                refreshed = time.monotonic()
                self._refresh()
        for _ in range(3):  # what is left in the pipes
            self._turn()
        return self._finish()

    def _turn(self) -> bool:
        """Wait for output for a moment. True if the command has ended."""
        over = self.child.is_over
        for stream, data in self.child.read(0.0 if over else REFRESH_S):
            self._output.add(data, time.monotonic())
            echo = self._echoes.get(stream)
            if echo is not None:
                echo.add(data)
        return over

    def _refresh(self) -> None:
        self._commands.look()
        self._heartbeat.beat()
        self._write_rows()
        self._log.flush()
        if self._notifier is not None:
            self._notifier.tick()

    def _finish(self) -> int:
        status = self.child.exit_status
        assert status is not None
        self._output.close()
        self._refresh()
        by = self._commands.stopped_by or self._signal
        final = last_event(self.run, status, by, time.monotonic() - self._started_at)
        last = encode_line(final)
        if self._log.append(last):
            self._log.write_last(last)
        self._log.close()
        if self._notifier is not None:
            self._notifier.end(final)
            self._notifier.wait()
        return status

    def _forward_signals(self) -> None:
        def forward(number: int, _frame: FrameType | None) -> None:
            if number != signal.SIGHUP:  # a closed terminal
                if number in (signal.SIGINT, signal.SIGTERM):
                    self._signal = signal.Signals(number).name
                self.child.send(number)

        for number in FORWARDED:
            signal.signal(number, forward)

    # --- events ------------------------------------------------------------------------------------------

    def _record(self, event: dict[str, Any]) -> None:
        if self._notifier is not None:
            self._notifier.observe(event)
        self._log.append(encode_line(event))

    def _note(self, message: str) -> None:
        """Write to output.log; the disk that refuses events may still take it."""
        self._output.add(f"epochtop: {message}\n".encode(), time.monotonic())

    def _read_line(self, line: str, complete: bool) -> None:
        """Keep the figures in a printed line, if no hooked process records better ones."""
        if not self._parses:
            return
        printed = parse(line)
        if printed is None or (not complete and printed == self._redrawn):
            return
        if is_claimed(self.run):
            self._parses = False
            return
        self._redrawn = None if complete else printed
        step = self._next_step if printed.step is None else printed.step
        self._next_step = step + 1
        self._rows.append((step, printed.values))

    def _write_rows(self) -> None:
        rows, self._rows = self._rows, []
        columns = columns_of(rows)
        for event in logged(columns, time.time(), time.monotonic() - self._started_at):
            self._record(event)
        if rows and self._notifier is not None:
            self._notifier.values(self._next_step, columns)


def exit_with(status: int) -> None:
    """Leave with the exit status of the command."""
    sys.exit(shell_status(status))
