"""A small client of `python -m epochtop.engine`, and readers of what a run recorded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
import psutil

from epochtop.engine.protocol.commands import AnyCommand
from epochtop.engine.protocol.events import AnyEvent, Failed, Finished, Logged, encode
from epochtop.engine.protocol.requests import (
    Accepted,
    AnyReply,
    AnyRequest,
    Begin,
    Continue,
    Describe,
    Plan,
    Progress,
    Ready,
    Refused,
    decode_reply,
)
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import BadLine, Follower, is_alive, read_events
from epochtop.engine.runs.series import TRAIN_LOSS
from epochtop.engine.runs.writer import create, send
from tests.support.processes.prefork import ForkedProcess, forked

HANGING_S = 240.0
"""A wait this long means that something hangs. It is not a measure of speed."""
POLL_S = 0.005

Kind = TypeVar("Kind")


def wait_until(true: Callable[[], object]) -> None:
    """Wait for something that must come."""
    patience = time.monotonic() + HANGING_S
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.02)


FORKED: tuple[str, ...] = ()
FRESH = ("-m", "epochtop.engine")
"""A new interpreter, for what a forked engine cannot show (see :mod:`tests.support.processes.prefork`)."""


def _start(program: tuple[str, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )


class Engine:
    """An engine process in a session of its own. Ready after `with`; killed when left."""

    def __init__(self, program: tuple[str, ...] = FORKED) -> None:
        """`program` are the arguments of a new interpreter; by default the engine is forked, which saves two seconds."""
        self._program = program

    def __enter__(self) -> Engine:
        self.process = ForkedProcess() if self._program == FORKED else _start(self._program)
        try:
            self.ready = self.reply()
            assert isinstance(self.ready, Ready)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill it and close both pipes."""
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def describe(self, spec: RunSpec) -> Plan | Refused:
        """What a run of `spec` would do."""
        reply = self.ask(Describe(spec=spec))
        assert isinstance(reply, Plan | Refused)
        return reply

    def begin(self, spec: RunSpec, home: Path) -> Accepted | Refused:
        """Ask for a run."""
        reply = self.ask(Begin(spec=spec, home=str(home)))
        assert isinstance(reply, Accepted | Refused)
        return reply

    def train(self, spec: RunSpec, home: Path) -> Path:
        """Begin a run that must be accepted; returns its directory."""
        reply = self.begin(spec, home)
        assert isinstance(reply, Accepted), reply
        return Path(reply.run)

    def resume(self, run: Path) -> AnyReply:
        """Ask the engine to go on with a run."""
        return self.ask(Continue(run=str(run)))

    def kill(self) -> None:
        """End it without a warning, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait(HANGING_S)

    def wait(self) -> int:
        """Until the process has ended; its exit status."""
        return self.process.wait(HANGING_S)

    def ask(self, request: AnyRequest) -> AnyReply:
        """Send a request and wait for the reply."""
        self.tell(encode(request))
        return self.reply()

    def tell(self, line: bytes) -> None:
        """Send a line and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")

    def reply(self) -> AnyReply:
        """The next reply; what is said about progress is passed over."""
        assert self.process.stdout is not None
        while isinstance(reply := decode_reply(self.process.stdout.readline()), Progress):
            pass
        return reply

    def hang_up(self) -> None:
        """Close both pipes, as a viewer that ends does."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


def train_here(spec: RunSpec, home: Path) -> Path:
    """The same run in this process, for tests about numbers: they need no process of its own, which takes seconds."""
    from epochtop.engine.job.prepare import prepare_job
    from epochtop.engine.training import loop, recorder  # they import torch, which a test of the screen has no use for

    job = prepare_job(spec)
    run, lock = create(home, spec, {}, time.time())
    with lock:
        writing = recorder.Recorder(run, spec)
        training = loop.Loop(job, writing)
        writing.start(on_command=training.wake)
        writing.put(training.run())
        assert writing.close()
    return run


def ranks() -> list[psutil.Process]:
    """Every rank but the first, of any engine that pytest started."""
    processes = [
        psutil.Process(pid) for pid, name in forked().items() if name.startswith("rank ") and psutil.pid_exists(pid)
    ]
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = process.info["cmdline"] or []
        is_of_this_test = (process.info["environ"] or {}).get("EPOCHTOP_HOME") == os.environ["EPOCHTOP_HOME"]
        if (
            is_of_this_test
            and line[1:5] == ["-P", "-m", "epochtop.engine", "rank"]
            and process.status() != psutil.STATUS_ZOMBIE
        ):
            processes.append(process)
    return processes


def rank_of(engine: Engine, rank: int) -> psutil.Process:
    """A rank that this engine started."""
    (pid,) = (pid for pid, name in forked().items() if name == f"rank {rank} of {engine.process.pid}")
    return psutil.Process(pid)


def is_window(event: object) -> TypeGuard[Logged]:
    """Whether an event is a window of training losses."""
    return isinstance(event, Logged) and TRAIN_LOSS in event.values


def windows(recorded: Iterable[object]) -> list[Logged]:
    """The windows of training losses among events."""
    return [event for event in recorded if is_window(event)]


class Watch:
    """A viewer that remembers all it saw of a run."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.seen: list[AnyEvent | BadLine] = []
        self._looked = 0
        self._follower = Follower(run)
        weakref.finalize(self, self._follower.close)

    def catch_up(self) -> None:
        """Read what is there by now."""
        self.seen += self._follower.read_all()

    def until(self, kind: type[Kind], wanted: Callable[[Kind], bool] = lambda _: True, start: int = 0) -> Kind:
        """Wait for an event; those before number `start` do not count."""
        patience = time.monotonic() + HANGING_S
        while True:
            alive = is_alive(self.run)
            self.catch_up()
            for event in self.seen[start:]:
                if isinstance(event, kind) and wanted(event):
                    return event
            start = max(start, len(self.seen))
            assert alive, f"the run ended without {kind.__name__}: {self.seen[-3:]}"
            assert time.monotonic() < patience, f"no {kind.__name__} came: {self.seen[-3:]}"
            time.sleep(POLL_S)

    def windows(self, count: int = 1) -> None:
        """Wait for that many more windows of losses."""
        for _ in range(count):
            self.until(Logged, is_window, start=len(self.seen))

    def until_step(self, step: int) -> None:
        """Wait until the losses of so many steps are there, or the run has ended."""
        patience = time.monotonic() + HANGING_S
        while time.monotonic() < patience:
            self.catch_up()
            for event in self.seen[self._looked :]:
                if is_window(event) and event.first_step + event.count >= step:
                    return
                if isinstance(event, Finished | Failed):
                    return
            self._looked = len(self.seen)
            time.sleep(POLL_S)
        raise AssertionError(f"step {step} did not come")

    def command(self, command: AnyCommand, answer: type[Kind]) -> tuple[Kind, int]:
        """Send a command and wait for its answer; returns it and the number of windows between the two.

        Windows that came while the command was on its way to the file do not count.
        """
        self.catch_up()
        start = len(self.seen)
        send(self.run, command)
        self.catch_up()
        sent = len(self.seen)
        event = self.until(answer, start=start)
        between = self.seen[sent : self.seen.index(event, start)]  # type: ignore[arg-type]
        return event, sum(map(is_window, between))

    def end(self) -> Finished | Failed:
        """Wait for the last event; fails if the run ended without one."""
        return self.until(Finished | Failed)  # type: ignore[arg-type]


def events(run: Path) -> list[AnyEvent | BadLine]:
    """All events of a run."""
    return read_events(run)


def losses(run: Path) -> npt.NDArray[np.float32]:
    """The recorded losses of a run, float32 (steps,). Fails where a step is missing or comes twice."""
    recorded = windows(events(run))
    values = np.frombuffer(b"".join(event.values[TRAIN_LOSS] for event in recorded), dtype="<f4")
    counts = [event.count for event in recorded]
    assert [event.first_step for event in recorded] == [sum(counts[:place]) for place in range(len(counts))]
    return values


def finished(run: Path) -> Finished:
    """The summary of a run; fails if its last event is another one."""
    last = events(run)[-1]
    assert isinstance(last, Finished), last
    return last
