"""The viewer's side of a standby engine: start it, ask it, hand it a run.

Calls block; the app makes them in a thread. The engine is a session of its own, so neither Ctrl-C nor a
terminal that closes reaches it. This module never imports torch: it only talks to the process that did.
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


class EngineDied(Exception):  # noqa: N818 - an event, in the project's words
    """The engine ended before it answered; the message is what it said last."""


class Standby:
    """One engine process that has no run yet. Threads may share it; requests wait for each other."""

    def __init__(self, say: Callable[[str], object] = lambda _: None) -> None:
        """`say` hears what a request that takes long is doing; it is called in the thread that asked."""
        self._say = say
        # Descriptors are given explicitly: inside a running Textual app sys.stderr has none.
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
        self.taken = False
        """Whether the engine has a run and answers no more."""

    def ready(self) -> Ready:
        """What the engine found, once it has imported torch. Raises EngineDied."""
        with self._turn:
            return self._hello()

    def describe(self, spec: RunSpec) -> Plan | Refused:
        """What a run of `spec` would do, or why it cannot be. Raises EngineDied."""
        reply = self._ask(Describe(spec=spec))
        assert isinstance(reply, Plan | Refused)
        return reply

    def begin(self, spec: RunSpec, home: Path) -> Accepted | Refused:
        """Hand over a run. After Accepted the engine belongs to nobody. Raises EngineDied."""
        reply = self._ask(Begin(spec=spec, home=str(home)))
        assert isinstance(reply, Accepted | Refused)
        self.taken = isinstance(reply, Accepted)
        return reply

    def resume(self, run: Path) -> Accepted | Refused:
        """Let the engine go on with a run that had ended. Raises EngineDied."""
        reply = self._ask(Continue(run=str(run)))
        assert isinstance(reply, Accepted | Refused)
        self.taken = isinstance(reply, Accepted)
        return reply

    def measure(self, experiment: ExperimentRequest, spec: RunSpec, home: Path) -> Accepted | Refused:
        """Hand over an experiment. After Accepted the engine belongs to nobody. Raises EngineDied."""
        reply = self._ask(Measure(experiment=experiment, spec=spec, home=str(home)))
        assert isinstance(reply, Accepted | Refused)
        self.taken = isinstance(reply, Accepted)
        return reply

    def find_batch(self, spec: RunSpec, margin: float) -> BatchFound | Refused:
        """The largest batch that fits; takes as long as it takes. Raises EngineDied."""
        reply = self._ask(FindBatch(spec=spec, margin=margin))
        assert isinstance(reply, BatchFound | Refused)
        return reply

    def close(self) -> None:
        """Let a waiting engine end; one that has a run is left alone."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        if not self.taken:
            self.process.terminate()

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
            self._say(reply.message)
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
        said = f": {lines[-1]}" if lines else ""
        return f"the engine ended ({how_it_ended(self.process.returncode)}){said}"


def how_it_ended(returncode: int | None) -> str:
    """A process's return code in words; None is one whose end nobody saw."""
    if returncode is None:
        return "nobody saw how"
    if returncode >= 0:
        return f"exit status {returncode}"
    import signal

    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
