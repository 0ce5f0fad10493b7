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
from pathlib import Path
from typing import Any

from epochtop.supervisor.child import signal_name

TAIL_BYTES = 1 << 20
"""Bytes at the end of the log in which the last steps are looked for."""
OUTPUT_BYTES = 1 << 16
"""Bytes at the end of the output in which a traceback is looked for."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a command on request."""
TRACEBACK = "Traceback (most recent call last):"


def last_event(run: Path, exit_status: int, stopped_by: str, started: float, dropped: int = 0) -> dict[str, Any]:
    """`ScriptEnded`, or `Failed` if the command ended with an error.

    `exit_status` is negative for a signal. `stopped_by` says who asked it to stop; empty if nobody did.
    """
    steps = step_count(run / "events.jsonl")
    now = time.time()
    by_signal = signal_name(-exit_status) if exit_status < 0 else ""
    if exit_status == 0 or stopped_by or -exit_status in STOPPING:
        stopped = bool(stopped_by or by_signal)
        return {
            "type": "ScriptEnded",
            "time": now,
            "outcome": "stopped" if stopped else "finished",
            "reason": f"stopped by {stopped_by}" if stopped_by else f"ended by {by_signal}" if by_signal else "",
            "exit_status": shell_status(exit_status),
            "steps": steps,
            "seconds": now - started,
            "dropped": dropped,
        }
    traceback = last_traceback(output_tail(run / "output.log"))
    message = traceback.splitlines()[-1] if traceback else f"the command ended with exit status {exit_status}"
    advice = "output.log has what it printed"
    if by_signal:
        message, traceback = f"the command was ended by {by_signal}", ""
        advice = "it may have run out of memory; `dmesg` tells" if -exit_status == signal.SIGKILL else advice
    return {"type": "Failed", "time": now, "step": steps, "message": message, "advice": advice, "traceback": traceback}


def shell_status(exit_status: int) -> int:
    """The exit status as a shell reports it: 128 and the number of the signal for a command that a signal ended."""
    return 128 - exit_status if exit_status < 0 else exit_status


def step_count(log: Path) -> int:
    """The highest step near the end of a log, plus 1; 0 if there is none."""
    highest = 0
    for line in _tail(log, TAIL_BYTES).split(b"\n"):
        if line.startswith(b'{"type":"Logged"'):
            try:
                event = json.loads(line)
                highest = max(highest, _end(event))
            except (ValueError, KeyError, TypeError):
                continue
    return highest


def _end(event: dict[str, Any]) -> int:
    if event.get("steps") is None:
        return int(event["first_step"] + event["count"])
    steps = array.array("q", binascii.a2b_base64(event["steps"]))
    if sys.byteorder == "big":
        steps.byteswap()
    return max(steps, default=-1) + 1


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
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read()
    except OSError:
        return b""
