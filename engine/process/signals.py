"""Signals to a process that owns a run directory: which ones stop the run, and how long it stood still.

A batch system such as SLURM warns a job with a signal before it kills it. No signal that can be caught ends a run without
saving. Must never import a concrete kind of work.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from epochtop.engine.protocol.commands import BATCH_SIGNALS, Stop
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.training.recorder import Recorder

ALWAYS_STOP = (signal.SIGTERM, signal.SIGINT)
"""Signals that stop every run."""
MOST_WORKERS = 100
"""Workers that may end at the same moment."""
RUN_SIGNALS = (*ALWAYS_STOP, signal.SIGHUP, *BATCH_SIGNALS)
"""Signals whose default action would end a run without saving."""


def stopping(spec: RunSpec) -> tuple[signal.Signals, ...]:
    """Signals that stop a run of `spec`."""
    names = {name.strip().removeprefix("SIG") for name in spec.signals.split(",")}
    return (*ALWAYS_STOP, *(number for number in BATCH_SIGNALS if number.name.removeprefix("SIG") in names))


def hold() -> None:
    """Delay signals until :func:`answer` is called: from now on they are meant for the run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)


def release() -> None:
    """Deliver signals again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)


def answer(spec: RunSpec, recorder: Recorder, wake: Callable[[], None]) -> None:
    """Turn the signals that stop a run of `spec` into the command Stop, and ignore the others.

    SIGCONT ends a time that the process stood still. To be called in the main thread.
    """

    def stop(number: int, _frame: object) -> None:
        recorder.commands.put(Stop(by=f"signal {signal.Signals(number).name}"))
        wake()

    for number in stopping(spec):
        if number in ALWAYS_STOP or _is_default(number):
            signal.signal(number, stop)
    for number in (signal.SIGHUP, *BATCH_SIGNALS):
        if _is_default(number):
            signal.signal(number, signal.SIG_IGN)
    if _is_default(signal.SIGCONT):
        signal.signal(signal.SIGCONT, lambda _number, _frame: recorder.suspension.end())
    release()


def note_stops(spec: RunSpec, requested: threading.Event) -> None:
    """Set `requested` as soon as a signal arrives that stops a run of `spec`. To be called in the main thread.

    Handlers run in the main thread only, and not while it waits in a library for another rank.
    """
    arrivals, on_arrival = os.pipe()
    os.set_blocking(on_arrival, False)
    signal.set_wakeup_fd(on_arrival, warn_on_full_buffer=False)
    stops = {int(number) for number in stopping(spec)}

    def read() -> None:
        while not requested.is_set() and (numbers := os.read(arrivals, 64)):
            if stops.intersection(numbers):
                requested.set()

    threading.Thread(target=read, name="signals", daemon=True).start()


def ignore() -> None:
    """Ignore all signals, for a process that another one stops, or that has written its last event."""
    for number in RUN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def forget_workers() -> None:
    """Ignore the ends of a DataLoader's workers from now on.

    torch's handler raises RuntimeError wherever the main thread is, for every child that ends after a worker has failed.
    """
    for _ in range(MOST_WORKERS):
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        except RuntimeError:  # it has run once more
            continue
        return


def _is_default(number: signal.Signals) -> bool:
    """Whether the task's code has no handler of its own."""
    return signal.getsignal(number) == signal.SIG_DFL
