"""The viewer's side of a standby engine: start it, send requests, hand it a run.

Calls block, so the app makes them in a thread. The engine runs in its own session: neither Ctrl-C nor a closing terminal
reaches it. Never imports torch; the engine process does.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.requests import (
    Accepted,
    AnyReply,
    AnyRequest,
    BatchFound,
    Begin,
    Continue,
    Describe,
    FindBatch,
    Measure,
    Plan,
    Progress,
    Ready,
    Refused,
    decode_reply,
)
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.log import UNSAVED_STATUS


class EngineDied(Exception):  # noqa: N818 - an event, in the project's words
    """The engine ended before it answered; the message is the last line it printed."""


class Standby:
    """One engine process without a run. Threads may share it; it answers one request at a time."""

    def __init__(self, on_progress: Callable[[str], object] = lambda _: None) -> None:
        """`on_progress` receives the phase of a slow request; it is called in the requesting thread."""
        self._on_progress = on_progress
        # Explicit descriptors: inside a running Textual app sys.stderr has none.
        self._errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "epochtop.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._turn = threading.Lock()
        self._ready: Ready | None = None
        self.busy = False
        """Whether the engine has a run and no longer answers."""

    def ready(self) -> Ready:
        """The devices and versions that torch reports, once the engine has imported it. Raises EngineDied."""
        with self._turn:
            return self._hello()

    def describe(self, spec: RunSpec) -> Plan | Refused:
        """The plan of a run of `spec`, or why it cannot run. Raises EngineDied."""
        reply = self._ask(Describe(spec=spec))
        assert isinstance(reply, Plan | Refused)
        return reply

    def begin(self, spec: RunSpec, home: Path) -> Accepted | Refused:
        """Start a run. Once accepted, the engine outlives this process. Raises EngineDied."""
        return self._hand_over(Begin(spec=spec, home=str(home)))

    def resume(self, run: Path, trusted_owner: str = "", edited_task: bool = False) -> Accepted | Refused:
        """Resume a run that had ended. Raises EngineDied.

        `trusted_owner` is another owner of the run whose task may be executed. `edited_task` executes the task's files as
        they are now.
        """
        return self._hand_over(Continue(run=str(run), trusted_owner=trusted_owner, edited_task=edited_task))

    def measure(self, experiment: ExperimentRequest, spec: RunSpec, home: Path) -> Accepted | Refused:
        """Start an experiment. Once accepted, the engine outlives this process. Raises EngineDied."""
        return self._hand_over(Measure(experiment=experiment, spec=spec, home=str(home)))

    def find_batch(self, spec: RunSpec, margin: float) -> BatchFound | Refused:
        """The largest batch that fits. May take minutes. Raises EngineDied."""
        reply = self._ask(FindBatch(spec=spec, margin=margin))
        assert isinstance(reply, BatchFound | Refused)
        return reply

    def close(self) -> None:
        """End an idle engine; one that has a run continues."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        if not self.busy:
            self.process.terminate()

    def _hand_over(self, request: Begin | Continue | Measure) -> Accepted | Refused:
        reply = self._ask(request)
        assert isinstance(reply, Accepted | Refused)
        self.busy = isinstance(reply, Accepted)
        return reply

    def _hello(self) -> Ready:
        if self._ready is None:
            reply = self._read()
            assert isinstance(reply, Ready)
            self._ready = reply
        return self._ready

    def _ask(self, request: AnyRequest) -> AnyReply:
        with self._turn:
            self._hello()
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(encode(request) + b"\n")
                self.process.stdin.flush()
            except (OSError, ValueError):
                raise EngineDied(self._last_words()) from None
            return self._read()

    def _read(self) -> AnyReply:
        while isinstance(reply := self._next(), Progress):
            self._on_progress(reply.message)
        return reply

    def _next(self) -> AnyReply:
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
        except (OSError, ValueError):
            line = b""
        if not line.endswith(b"\n"):
            raise EngineDied(self._last_words())
        return decode_reply(line)

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        reason = f": {lines[-1]}" if lines else ""
        return f"the engine ended ({how_it_ended(self.process.returncode)}){reason}"


def how_it_ended(returncode: int | None) -> str:
    """A process's return code in words; None if the exit status is unknown."""
    if returncode is None:
        return "exit status unknown"
    if returncode == UNSAVED_STATUS:
        return "the disk is full: the last checkpoint and the end of the log are not written; free space, then resume"
    if returncode >= 0:
        return f"exit status {returncode}"
    import signal

    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"killed by {name}" + (" (possibly out of memory)" if name == "SIGKILL" else "")
