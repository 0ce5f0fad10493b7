"""What commands have in common: they ask an engine, follow a run to its end, and turn errors into an exit status.

The engine is a separate process here too: if this process is killed or its terminal closes, the run continues.
Never imports a widget.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

from epochtop.engine.protocol.commands import BATCH_SIGNALS, Stop
from epochtop.engine.protocol.events import AnyEvent
from epochtop.engine.protocol.requests import Accepted, Refused
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.paths import whoami
from epochtop.engine.runs.reader import BadLine, Follower, is_alive, output_tail, read_record
from epochtop.engine.runs.remote.registry import mirror_of
from epochtop.engine.runs.writer import send
from epochtop.engine.terminal.output import drop_output, write_error
from epochtop.tui.client.session import Fold
from epochtop.tui.client.silence import likely_cause
from epochtop.tui.client.standby import EngineDied, Standby, how_it_ended
from epochtop.tui.client.unanswered import PATIENCE_S
from epochtop.tui.state.lines import MessageLine

POLL_S = 0.05
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit statuses; the last is that of Ctrl-C."""

Reply = TypeVar("Reply")


def exit_status(command: Callable[[], int]) -> int:
    """The exit status of a command. An expected error becomes one line on standard error."""
    try:
        return command()
    except Invalid as error:
        write_error(f"epochtop: {error}\n")
        return BAD_INPUT
    except EngineDied as error:
        write_error(f"epochtop: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader is gone; nothing is left to flush
        drop_output()
        return 0


def _report(phase: str) -> None:
    write_error(f"{phase}\n")


def ask(request: Callable[[Standby], Reply | Refused], on_progress: Callable[[str], object] = _report) -> Reply:
    """One reply of an engine that ends with it. Raises Invalid if it refuses, EngineDied and KeyboardInterrupt."""
    standby = Standby(on_progress)
    try:
        return _accepted(request(standby))
    finally:
        standby.close()


def start(request: Callable[[Standby], Accepted | Refused]) -> tuple[Path, Standby]:
    """A run that an engine has started, and the engine. Raises Invalid if it refuses, EngineDied, KeyboardInterrupt."""
    standby = Standby(_report)
    try:
        return Path(_accepted(request(standby)).run), standby
    except BaseException:
        standby.close()
        raise


def _accepted(reply: Reply | Refused) -> Reply:
    if isinstance(reply, Refused):
        raise Invalid(reply.field, reply.message)
    return reply


def follow(
    follower: Follower,
    standby: Standby,
    state: Fold,
    on_line: Callable[[MessageLine], object],
    on_refresh: Callable[[Sequence[AnyEvent | BadLine]], object] = lambda _: None,
) -> None:
    """Fold a run's events into `state` until it is over; `on_refresh` gets the new ones about 20 times a second."""
    run = follower.path
    while not state.over:
        alive = is_alive(run)  # checked before reading, so that an end written in between is read below
        events = follower.read()
        for event in events:
            for line in state.apply(event):
                on_line(line)
        on_refresh(events)
        if events or state.over:
            continue
        if alive:
            time.sleep(POLL_S)
            continue
        for line in state.died(how_it_ended(standby.process.wait()), output_tail(run)):
            on_line(line)


def skip_history(follower: Follower, state: Fold, on_line: Callable[[MessageLine], object]) -> None:
    """Fold what happened before the engine resumed the run; only the resumption is news."""
    while True:
        alive = is_alive(follower.path)
        for event in follower.read_all():
            for line in state.apply(event):
                if line.kind == "resumed":
                    on_line(line)
        if not state.over or not alive:
            return
        time.sleep(POLL_S)


def stop_on_signals(run: Path, announce: Callable[[], object], farewell: str = "") -> None:
    """Stop `run` on Ctrl-C and SIGTERM; leave with exit status 130 on another Ctrl-C, after writing `farewell`.

    A batch system kills what is left of a job when this process ends, so no other signal ends it before the engine has
    saved. Signals but these two are passed on to the engine, which knows the run's `signals`.
    """
    stopped = failed = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped, failed
        if (stopped and number == signal.SIGINT) or failed:
            write_error(farewell)
            raise SystemExit(INTERRUPTED)
        if stopped:
            return
        announce()
        stopped = True
        try:
            send(run, Stop(by=whoami()))
        except OSError as error:
            failed = True
            write_error(f"epochtop: cannot stop {run.name}: {error.strerror}; press Ctrl-C again to leave it\n")

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(Invalid, OSError):
            os.kill(read_record(run).pid, number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    for number in BATCH_SIGNALS:
        signal.signal(number, pass_on)


def ignore_signals() -> None:
    """Ignore signals of batch systems: the run is over, and the exit status must say how it ended."""
    for number in (signal.SIGTERM, *BATCH_SIGNALS):
        signal.signal(number, signal.SIG_IGN)


def stop_and_wait(run: Path) -> None:
    """Stop a run and wait until its engine has ended. Raises OSError if it cannot be told, or its machine is out of reach."""
    send(run, Stop(by=whoami()))
    mirror, report_at = mirror_of(run), time.monotonic() + PATIENCE_S
    while is_alive(run):
        if time.monotonic() > report_at:
            report_at = math.inf
            cause = likely_cause(run)
            reason = f": {cause}" if cause else ""
            write_error(f"epochtop: Stop has not been answered for {PATIENCE_S:.0f} s{reason}\n")
        if mirror is not None and mirror.problem:
            raise ConnectionError(0, f"{mirror.problem}; the run may not have stopped")
        time.sleep(POLL_S)
