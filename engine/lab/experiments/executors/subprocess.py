"""An executor in a process of its own: torch.compile cannot be interrupted, a process can be ended.

One that compiles takes ten seconds to minutes, and an experiment has less than one. The process measures when it is
told to, so that its measurements alternate with those made here. It ends with the one that began it.
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

from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.protocol.spec import RunSpec

POLL_S = 0.05


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is asked to make."""

    spec: RunSpec
    device: str
    executor: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """It takes steps now; or why it never will."""

    seconds: float = 0.0
    """What making it took, torch's import and the job's own set-up left out."""
    cache: Literal["new", "part", "kept"] = "new"
    """How much of what it compiled was in the cache already."""
    why: str = ""
    """Why the job is not for it; empty if it is."""


class Late(Exception):  # noqa: N818 - an event, in the project's words
    """It was not ready in time."""


class Beside:
    """The process, from this side. To be used in a `with` statement, which ends it."""

    def __init__(self, bench: ExperimentContext, wanted: Wanted) -> None:
        self._bench, self._wanted = bench, wanted
        self._left = b""

    def __enter__(self) -> Beside:
        # in a session of its own, so that compilers that it starts can be ended with it
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "epochtop.engine.lab.experiments.executors.subprocess"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._send(self._wanted)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def ready(self, within_s: float) -> Ready:
        """Wait until it is. Raises Late, Stopped, or Unfit if the job is not for it or it has ended."""
        found = msgspec.json.decode(self._line(perf_counter() + within_s), type=Ready)
        if found.why:
            raise Unsupported(found.why)
        return found

    def __call__(self, times: int) -> float:
        """Seconds of so many steps, taken there. Raises Stopped, and Unfit if it has ended."""
        self._send(times)
        return msgspec.json.decode(self._line(), type=float)

    def _send(self, what: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # that it has ended is found where its answer is read
            self._process.stdin.write(msgspec.json.encode(what) + b"\n")
            self._process.stdin.flush()

    def _line(self, until: float | None = None) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._left:
            self._bench.check()
            if until is not None and perf_counter() > until:
                raise Late
            if not select.select([pipe], [], [], POLL_S)[0]:
                continue
            read = os.read(pipe, 65536)
            if not read:
                raise Unsupported(f"its process ended with status {self._process.wait()}; output.log may tell why")
            self._left += read
        line, _, self._left = self._left.partition(b"\n")
        return line


# --- the other side ----------------------------------------------------------------------------------------------


def main() -> None:
    """Make what the first line asks for; then, for each further line, take so many steps."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever libraries print is no answer
    lines: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_listen, args=(lines,), daemon=True).start()

    def answer(what: object) -> None:
        os.write(answers, msgspec.json.encode(what) + b"\n")

    wanted = msgspec.json.decode(lines.get(), type=Wanted)
    try:
        step, ready = _made(wanted)
    except Unsupported as unfit:
        answer(Ready(why=str(unfit)))
        lines.get()  # never comes: whoever asked ends this process
        return
    answer(ready)
    while True:
        answer(step(msgspec.json.decode(lines.get(), type=int)))


def _listen(lines: SimpleQueue[bytes]) -> None:
    """Hand over what is asked, also while something is compiled; end all of it when nobody can ask any more."""
    for line in sys.stdin.buffer:
        lines.put(line)
    os.killpg(0, signal.SIGKILL)


def _made(wanted: Wanted) -> tuple[Any, Ready]:
    from epochtop.engine.execution.choice import make
    from epochtop.engine.lab.instruments.jobs import job_of
    from epochtop.engine.lab.instruments.stepping import Stepping

    job = job_of(wanted.spec, wanted.device)
    begun = perf_counter()
    executor = make(job, wanted.executor)
    seconds = perf_counter() - begun
    return Stepping(job, executor), Ready(seconds=seconds, cache=_cache())


def _cache() -> Literal["new", "part", "kept"]:
    """What Inductor says of its cache."""
    from torch._dynamo.utils import counters

    found = counters["inductor"]
    if not found["fxgraph_cache_hit"]:
        return "new"
    return "part" if found["fxgraph_cache_miss"] else "kept"


if __name__ == "__main__":
    main()
