"""The life of a process that owns a run directory: it leaves its terminal, records, answers commands and signals, ends.

Training runs and experiments share it; what they do in between is their :class:`Work`. Must never import a concrete one.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from pathlib import Path
from typing import Any, Protocol

from epochtop.engine.data.downloads import cache
from epochtop.engine.execution.c import build
from epochtop.engine.process import signals
from epochtop.engine.process.notifications import RunNotifier
from epochtop.engine.protocol.events import AnyEvent, Failed
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.files import clean_home
from epochtop.engine.runs.log import UNSAVED_STATUS
from epochtop.engine.runs.paths import OUTPUT, cache_folder
from epochtop.engine.training import checkpoint
from epochtop.engine.training.recorder import Recorder


class Work(Protocol):
    """What a run directory's process does between its first and its last event."""

    def run(self, recorder: Recorder) -> AnyEvent:
        """Work to the end and return the last event, :class:`Failed` after an exception. Must not raise."""
        ...

    def wake(self) -> None:
        """Look at `recorder.commands`; called from another thread or a signal handler when a command has arrived."""
        ...

    def close(self) -> None:
        """Leave no process behind. Called after the last event has been handed over."""
        ...


def serve(work: Work, path: Path, spec: RunSpec, *, attached: bool = False, commands_from: int = 0) -> int:
    """Do `work` for the run at `path`. Returns the exit status: 1 if it failed or its log could not be written, 4 if
    its last checkpoint could not be written.

    `attached` keeps standard input and output. Commands in the first `commands_from` bytes are ignored.
    """
    if not attached:
        detach(path)
    remove_left_overs(path)
    recorder = Recorder(path, spec, commands_from, observer=RunNotifier.of(path, lambda event: recorder.put(event)))
    recorder.start(on_command=work.wake)
    work.wake()
    signals.answer(spec, recorder, work.wake)
    last = work.run(recorder)
    recorder.put(last)
    work.close()
    written = recorder.close()
    signals.ignore()  # the run is complete; its exit status must say so
    if recorder.unsaved:
        return UNSAVED_STATUS
    return int(not written or isinstance(last, Failed))


def remove_left_overs(run: Path) -> None:
    """Remove files that killed processes left incomplete: in this run, next to it, and in the caches."""
    checkpoint.remove_unnamed(run)
    clean_home(run.parent)
    with contextlib.suppress(OSError):  # a run does not need a cache
        cache.remove_left_overs(cache_folder())
        build.remove_left_overs()


def detach(run: Path) -> None:
    """Read from nowhere, write standard output and error into the run's `output.log`."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(run / OUTPUT, os.O_WRONLY | os.O_APPEND)
    for descriptor, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, descriptor)
    os.close(nothing)
    os.close(output)
    sys.stdout, sys.stderr = OutputLog.stream(1), OutputLog.stream(2)


class OutputLog(io.FileIO):
    """A file that drops what the disk refuses, so that a print on a full disk does not end a run."""

    def write(self, content: Any) -> int:
        """Write bytes; returns their number, whether they were written or dropped."""
        try:
            written = super().write(content)
        except OSError:
            written = None
        return memoryview(content).nbytes if written is None else written

    @classmethod
    def stream(cls, descriptor: int) -> io.TextIOWrapper:
        """A text stream for a descriptor that stays open; each line is written at once."""
        raw = cls(descriptor, "wb", closefd=False)
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True)


def freeze_heap() -> None:
    """Exempt all objects that exist now from garbage collection: later collections need not look at them."""
    gc.collect()
    gc.freeze()
