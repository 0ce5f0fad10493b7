"""How a command ended, as the last event of its run. Standard library only."""

from __future__ import annotations

import array
import binascii
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from epochtop.configuration.regular import open_regular
from epochtop.recording.series import FiniteWatch
from epochtop.supervisor.child import signal_name

TAIL_BYTES = 1 << 20
"""Bytes at the end of the log in which the last steps are looked for."""
OUTPUT_BYTES = 1 << 16
"""Bytes at the end of the output in which a traceback is looked for."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a command on request."""
TRACEBACK = "Traceback (most recent call last):"


def last_event(run: Path, exit_status: int, stopped_by: str, seconds: float, dropped: int = 0) -> dict[str, Any]:
    """`ScriptEnded`, or `Failed` if the command ended with an error.

    `exit_status` is negative for a signal. `stopped_by` is the viewer who asked it to stop, or empty. The command ran
    for `seconds`.
    """
    windows = last_windows(run / "events.jsonl")
    now = time.time()
    by_signal = signal_name(-exit_status) if exit_status < 0 else ""
    if exit_status == 0 or stopped_by or -exit_status in STOPPING:
        stopped = bool(stopped_by or by_signal)
        reason = f"stopped by {stopped_by}" if stopped_by else f"ended by {by_signal}" if by_signal else ""
        return {
            "type": "ScriptEnded",
            "time": now,
            "outcome": "stopped" if stopped else "finished",
            "reason": "; ".join(filter(None, (reason, windows.not_finite))),
            "exit_status": shell_status(exit_status),
            "steps": windows.steps,
            "seconds": seconds,
            "dropped": dropped,
        }
    traceback = last_traceback(output_tail(run / "output.log"))
    message = traceback.splitlines()[-1] if traceback else f"the command ended with exit status {exit_status}"
    advice = "output.log has what it printed"
    if by_signal:
        message, traceback = f"the command was ended by {by_signal}", ""
        advice = "possibly out of memory; check `dmesg`" if -exit_status == signal.SIGKILL else advice
    return {
        "type": "Failed",
        "time": now,
        "step": windows.steps,
        "message": message,
        "advice": advice,
        "traceback": traceback,
    }


def shell_status(exit_status: int) -> int:
    """The exit status as a shell reports it: 128 and the number of the signal for a command that a signal ended."""
    return 128 - exit_status if exit_status < 0 else exit_status


class LastWindows(NamedTuple):
    """What the windows near the end of a log say."""

    steps: int
    """The highest step plus 1; 0 if there is none."""
    not_finite: str
    """A sentence about series that end with values that are not finite; empty if there are none."""


def last_windows(log: Path) -> LastWindows:
    """Read the windows near the end of a log. Lines that cannot be read are skipped."""
    tail = _tail(log, TAIL_BYTES)
    highest, watch = 0, FiniteWatch(is_complete=len(tail) < TAIL_BYTES)
    for line in tail.split(b"\n"):
        if line.startswith(b'{"type":"Logged"'):
            try:
                event = json.loads(line)
                steps = _steps(event)
                watch.add({name: (steps, _values(text, len(steps))) for name, text in event["values"].items()})
                highest = max(highest, max(steps) + 1)
            except (ValueError, KeyError, TypeError, IndexError):
                continue
    return LastWindows(highest, watch.describe())


def _steps(event: dict[str, Any]) -> Sequence[int]:
    if event.get("steps") is None:
        return range(event["first_step"], event["first_step"] + event["count"])
    return _array("q", event["steps"])


def _values(text: str, count: int) -> Sequence[float]:
    """Values in single or double precision, whichever has this count."""
    values = _array("f", text)
    return values if len(values) == count else _array("d", text)


def _array(typecode: str, text: str) -> array.array[Any]:
    numbers = array.array(typecode, binascii.a2b_base64(text))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def output_tail(path: Path) -> str:
    """The end of the output, each line as it was last drawn."""
    text = _tail(path, OUTPUT_BYTES).decode("utf-8", "replace")
    return "\n".join(line.rpartition("\r")[2] for line in text.split("\n"))


def last_traceback(text: str) -> str:
    """The last traceback in a text, from its first line to the exception; empty if there is none."""
    start = text.rfind(TRACEBACK)
    if start < 0:
        return ""
    lines = text[start:].splitlines()
    prefix_ends = next((n for n, line in enumerate(lines[1:], 1) if re.match(r"[A-Za-z_]", line)), len(lines) - 1)
    return "\n".join(lines[: prefix_ends + 1])


def _tail(path: Path, size: int) -> bytes:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read()
    except OSError:
        return b""
