"""An executor in its own process: torch.compile cannot be interrupted, but a process can be killed.

Compiling takes ten seconds to minutes, and an experiment has less than one. The process measures on request, so its
measurements alternate with those of this process. It ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, Literal

import msgspec

from epochtop.engine.execution.choice import make
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.stepping import Stepping
from epochtop.engine.protocol.spec import RunSpec

POLL_S = 0.05


class SetUpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The executor that the process should set up."""

    spec: RunSpec
    device: str
    executor: str


class ProgramReady(msgspec.Struct, frozen=True, kw_only=True):
    """The process is ready to run steps, or cannot run the job."""

    seconds: float = 0.0
    """Seconds of the set-up, without torch's import and the set-up of the job."""
    cache: Literal["new", "part", "kept"] = "new"
    """How much of the compiled code was already in the cache."""
    why: str = ""
    """Why it cannot run the job; empty if it can."""


class NotReady(Exception):  # noqa: N818 - an event, in the project's words
    """The process was not ready in time."""


class ExecutorProcess:
    """The process, seen from its parent. A `with` statement starts and ends it."""

    def __init__(self, context: ExperimentContext, request: SetUpRequest) -> None:
        self._context, self._request = context, request
        self._buffer = b""

    def __enter__(self) -> ExecutorProcess:
        # in a new session, so that compilers that it starts are killed with it
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "epochtop.engine.lab.experiments.executors.subprocess"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._send(self._request)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def ready(self, within_s: float) -> ProgramReady:
        """Wait until it is ready. Raises NotReady, Stopped, or Unsupported if it cannot run the job or has ended."""
        ready = msgspec.json.decode(self._line(perf_counter() + within_s), type=ProgramReady)
        if ready.why:
            raise Unsupported(ready.why)
        return ready

    def __call__(self, times: int) -> float:
        """Seconds of `times` steps in the process. Raises Stopped, and Unsupported if it has ended."""
        self._send(times)
        return msgspec.json.decode(self._line(), type=float)

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading its answer finds out that it has ended
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()

    def _line(self, until: float | None = None) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            self._context.check()
            if until is not None and perf_counter() > until:
                raise NotReady
            if not select.select([pipe], [], [], POLL_S)[0]:
                continue
            read = os.read(pipe, 65536)
            if not read:
                raise Unsupported(f"its process ended with status {self._process.wait()}; see output.log")
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


# --- in the process ----------------------------------------------------------------------------------------------


def main() -> None:
    """Set up the executor that the first line requests; then run as many steps as each further line says."""
    answers = os.dup(1)
    os.dup2(2, 1)  # output of libraries is not an answer
    lines: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_listen, args=(lines,), daemon=True).start()

    def answer(message: object) -> None:
        os.write(answers, msgspec.json.encode(message) + b"\n")

    request = msgspec.json.decode(lines.get(), type=SetUpRequest)
    try:
        step, ready = _set_up(request)
    except Unsupported as error:
        answer(ProgramReady(why=str(error)))
        lines.get()  # no line comes: the parent ends this process
        return
    answer(ready)
    while True:
        answer(step(msgspec.json.decode(lines.get(), type=int)))


def _listen(lines: SimpleQueue[bytes]) -> None:
    """Queue the requests, also during compilation; end the whole session when the parent is gone."""
    for line in sys.stdin.buffer:
        lines.put(line)
    os.killpg(0, signal.SIGKILL)


def _set_up(request: SetUpRequest) -> tuple[Any, ProgramReady]:
    job = job_of(request.spec, request.device)
    start = perf_counter()
    executor = make(job, request.executor)
    seconds = perf_counter() - start
    return Stepping(job, executor), ProgramReady(seconds=seconds, cache=_cache())


def _cache() -> Literal["new", "part", "kept"]:
    """How much of the compiled code was in Inductor's cache."""
    from torch._dynamo.utils import counters  # imports torch's compilers, which take seconds

    inductor = counters["inductor"]
    if not inductor["fxgraph_cache_hit"]:
        return "new"
    return "part" if inductor["fxgraph_cache_miss"] else "kept"


if __name__ == "__main__":
    main()
