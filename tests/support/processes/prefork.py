"""Engines forked from one process that has imported what they need: an interpreter that imports torch takes seconds.

The forked process runs `epochtop.engine.process.standby.main`, as `python -m epochtop.engine` does. What only a new
interpreter can show (its arguments, its import path, its first imports) needs `Engine(FRESH)`.

`python -m tests.support.processes.prefork FD` is the process that forks. It reads requests from the socket FD: a JSON object
with `folder` and `environment`, and the descriptors of standard input, output, error and of a pipe for the exit
status. It answers with the process id, and ends when the socket is closed.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from typing import IO, Any, NoReturn

MOST_BYTES = 2**20


class ForkedProcess:
    """An engine; the part of :class:`subprocess.Popen` that tests use."""

    def __init__(self) -> None:
        child_input, our_input = os.pipe()
        our_output, child_output = os.pipe()
        self._status, child_status = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(our_input, "wb", 0)
        self.stdout: IO[bytes] = os.fdopen(our_output, "rb", 0)
        self.returncode: int | None = None
        descriptors = [child_input, child_output, 2, child_status]
        self.pid = _forker().fork(descriptors)
        for descriptor in (child_input, child_output, child_status):
            os.close(descriptor)

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._await(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status. Raises TimeoutExpired after `timeout` seconds."""
        status = self._await(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("engine", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a warning."""
        self.send_signal(signal.SIGKILL)

    def _await(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode


class _Forker:
    """The forking process, from the side of the tests."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        command = [sys.executable, "-m", "tests.support.processes.prefork", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def close(self) -> None:
        """End the process; engines that still run are left alone."""
        self._socket.close()
        self._process.wait()

    def fork(self, descriptors: list[int]) -> int:
        request = json.dumps({"folder": os.getcwd(), "environment": dict(os.environ)}).encode()  # noqa: PTH109
        with self._lock:
            socket.send_fds(self._socket, [request], descriptors)
            return int(self._socket.recv(16))


@cache
def _forker() -> _Forker:
    forker = _Forker()
    atexit.register(forker.close)
    return forker


# --- the process that forks ---------------------------------------------------------------------------------


def serve(requests: socket.socket) -> None:
    """Fork an engine for each request and pass its exit status on."""
    import sklearn.datasets
    import sklearn.model_selection
    import sklearn.preprocessing  # noqa: F401

    from epochtop.engine.process import standby  # noqa: F401 - imports torch

    wakeup, on_child = os.pipe()
    os.set_blocking(on_child, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(on_child)
    sources: tuple[int, int] = (requests.fileno(), wakeup)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select(sources, [], [])
        if wakeup in ready:
            os.read(wakeup, 4096)
            _report_ended(running)
        if requests.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(requests, MOST_BYTES, 4)
            if not data:
                return
            *standard, status = descriptors
            pid = os.fork()
            if not pid:
                for descriptor in (requests.fileno(), wakeup, on_child, status, *running.values()):
                    os.close(descriptor)
                _become_engine(json.loads(data), standard)
            running[pid] = status
            requests.send(str(pid).encode())
            for descriptor in standard:
                os.close(descriptor)


def _report_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        descriptor = running.pop(pid)
        os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _become_engine(request: dict[str, Any], standard: list[int]) -> NoReturn:
    """In the forked process: what a new interpreter in a session of its own would be."""
    from epochtop.engine.process import standby

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.exit(standby.main())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
