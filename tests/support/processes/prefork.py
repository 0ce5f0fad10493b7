"""Engine processes forked from one process that has imported what they need: an interpreter that imports torch takes seconds.

A forked process runs what `python -P -m epochtop.engine ARGUMENTS` runs, or another module of FORKED. What only a new
interpreter can show (its arguments, its import path, its first imports) needs `Engine(FRESH)`, torchrun, or the installed
wheel. All workers of pytest-xdist share the process that forks.

`python -m tests.support.processes.prefork FD` is the process that forks. It listens on the socket FD. A request is a JSON
object with `folder`, `environment`, `module`, `arguments` and `name`, with the descriptors of standard input, output, error
and of a pipe for the exit status. The answer is the process id. A request with `home` is answered with the names of the
processes of that home folder that live, by process id. It ends when its standard input does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

ROOT = Path(__file__).parents[3]
EPOCHTOP = (sys.executable, "-P", str(Path(__file__).with_name("forking.py")))
"""The command `epochtop`, whose engines are forked once a process that forks has been started."""
MOST_BYTES = 2**18
ADDRESS = "EPOCHTOP_TESTS_FORKER"
"""The environment variable with the name of the forking process's socket."""


HOME = "EPOCHTOP_HOME"
"""The environment variable with the home folder; each test has its own, and one process forks for all tests of a run."""


class ForkedProcess:
    """An engine process; the part of :class:`subprocess.Popen` that engines, viewers and tests use."""

    def __init__(
        self,
        arguments: tuple[str, ...] = (),
        module: str = "epochtop.engine",
        stdin: int = subprocess.PIPE,
        stdout: int | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = None,
        bufsize: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._status, child_status = os.pipe()
        child_input, our_input = os.pipe() if stdin == subprocess.PIPE else (os.open(os.devnull, os.O_RDONLY), -1)
        our_output, child_output = os.pipe() if stdout == subprocess.PIPE else (-1, os.dup(1))
        self.stdin: IO[bytes] | None = os.fdopen(our_input, "wb", 0) if our_input >= 0 else None
        self.stdout: IO[bytes] | None = os.fdopen(our_output, "rb", bufsize) if our_output >= 0 else None
        self.returncode: int | None = None
        self._lock = threading.Lock()
        errors = stderr if isinstance(stderr, int) else stderr.fileno() if stderr is not None else 2
        self.pid = fork([child_input, child_output, errors, child_status], module, arguments, environment or os.environ)
        for descriptor in (child_input, child_output, child_status):
            os.close(descriptor)

    def __enter__(self) -> ForkedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in filter(None, (self.stdout, self.stdin)):
            pipe.close()
        self.wait()

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
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a warning."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._status)

    def _await(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
                self.returncode = int(os.read(self._status, 16))
                os.close(self._status)
            return self.returncode


FORKED = {
    "epochtop.engine": ((), ("rank",), ("predict",), ("export",)),
    "epochtop.engine.lab.experiments.executors.subprocess": ((),),
}
"""The modules that run in a forked process, with their first arguments; others need a new interpreter."""
MATTERING = ("PYTHON", "LD_", "OMP_", "MKL_", "CUDA_", "TORCH_")
"""Beginnings of variables that count when an interpreter starts or imports torch."""


def fork_engines() -> None:
    """Have this process fork engines where it would start a new interpreter, as long as its environment is the tests'."""
    started = {name: value for name, value in os.environ.items() if name.startswith(MATTERING)}
    original = subprocess.Popen

    class Popen(original):  # type: ignore[type-arg,valid-type,misc]
        def __new__(cls, arguments: Any, *more: Any, **options: Any) -> Any:
            words = () if isinstance(arguments, str | bytes | os.PathLike) else tuple(map(str, arguments))
            now = {name: value for name, value in os.environ.items() if name.startswith(MATTERING)}
            is_plain = not more and not options.keys() & {"env", "cwd"} and now == started
            is_module = words[:3] == (sys.executable, "-P", "-m")
            if is_module and is_plain and words[4:5] in FORKED.get(words[3], ()):
                names = ("stdin", "stdout", "stderr")
                chosen = {name: options[name] for name in names if options.get(name) is not None}
                if "stdout" not in chosen:
                    chosen["stdout"] = None
                return ForkedProcess(words[4:], words[3], bufsize=options.get("bufsize", -1), **chosen)
            return super().__new__(cls)

    subprocess.Popen = cast(Any, Popen)  # type: ignore[misc]


# --- the forking process, from the side of the others -------------------------------------------------------


def fork(descriptors: list[int], module: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> int:
    """Have a process forked that runs a module; its process id."""
    environment = {**environment, ADDRESS: address()}  # an engine forks its ranks where it was forked itself
    name = f"rank {arguments[1]} of {os.getpid()}" if arguments[:1] == ("rank",) else "engine"
    request = {"folder": os.getcwd(), "environment": environment, "name": name}  # noqa: PTH109
    return int(_ask(request | {"module": module, "arguments": arguments}, descriptors))


def forked() -> dict[int, str]:
    """The names of the test's forked processes that live, by process id: `engine`, or `rank 1 of` and the id of rank 0."""
    return {int(pid): name for pid, name in json.loads(_ask({"home": os.environ.get(HOME)})).items()}


def _ask(request: dict[str, Any], descriptors: Sequence[int] = ()) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect("\0" + address())
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
        return connection.recv(MOST_BYTES).decode()


def address() -> str:
    """The name of the socket of the process that forks; the first to ask starts it."""
    return os.environ.get(ADDRESS) or server()


@cache
def server() -> str:
    """The name of the socket of the process that forks, which is started now. It ends with this process; its engines do not."""
    name = os.environ[ADDRESS] = f"epochtop-tests-{os.getpid()}"
    start_listening(name, "-m", "tests.support.processes.prefork")
    return name


def start_listening(name: str, *arguments: str) -> None:
    """Start a Python process that serves the abstract socket `name`: its descriptor is the last argument. It ends with this one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("\0" + name)
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, *arguments, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            cwd=ROOT,
        )
    atexit.register(process.communicate)


# --- the process that forks ---------------------------------------------------------------------------------


def serve(listener: socket.socket) -> None:
    """Fork an engine for each request and pass its exit status on."""
    _import_all()
    wakeup, on_child = os.pipe()
    os.set_blocking(on_child, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(on_child)
    running: dict[int, Forked] = {}
    while True:
        ready, _, _ = select.select((listener, wakeup, 0), [], [])
        if wakeup in ready:
            os.read(wakeup, 4096)
            _report_ended(running)
        if 0 in ready:
            return
        if listener in ready:
            connection, _ = listener.accept()
            with connection:
                _answer(connection, running, listener, (wakeup, on_child))


IMPORTED = (
    *("sklearn.datasets", "sklearn.model_selection", "sklearn.preprocessing"),
    *("torch._dynamo", "torch.distributed.fsdp", "torch.profiler", "torch.utils.data"),
    *("epochtop.engine.distributed.rank", "epochtop.engine.process.standby"),
)
"""What engines import when they start, and later."""


def _import_all() -> None:
    """Import it, and exempt it from the garbage collections of engines."""
    gc.disable()
    for name in IMPORTED:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("tabulate")  # by torch.fx, where it is installed
    gc.collect()
    gc.freeze()
    gc.enable()


class Forked(NamedTuple):
    """A process that lives, on the side of the process that forked it."""

    name: str
    home: str | None
    status: int
    """Descriptor of the pipe for its exit status."""


def _answer(
    connection: socket.socket, running: dict[int, Forked], listener: socket.socket, wakeup: tuple[int, int]
) -> None:
    data, descriptors = hear(connection)
    if not data:
        return
    request = json.loads(data)
    if "home" in request:
        home = request["home"]
        tell(connection, json.dumps({pid: it.name for pid, it in running.items() if it.home == home}))
        return
    *standard, status = descriptors
    in_session, leads_session = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        for own in (connection, listener):
            own.close()  # the object too: at the end of the process it would close what has its number by then
        statuses = (process.status for process in running.values())
        for descriptor in (*wakeup, in_session, leads_session, status, *statuses):
            os.close(descriptor)
        _become_engine(request, standard)
    os.close(leads_session)
    os.read(in_session, 1)  # until the process leads a session: whoever asked may kill all of it
    os.close(in_session)
    running[pid] = Forked(request["name"], request["environment"].get(HOME), status)
    for descriptor in standard:
        os.close(descriptor)
    tell(connection, str(pid))


def hear(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A request and its descriptors; nothing if the process that asked was killed. Other tests still need this process."""
    with contextlib.suppress(ConnectionError):
        data, descriptors, _, _ = socket.recv_fds(connection, MOST_BYTES, 4)
        return data, descriptors
    return b"", []


def tell(connection: socket.socket, answer: str) -> None:
    """Answer the process that asked, unless it was killed."""
    with contextlib.suppress(ConnectionError):
        connection.send(answer.encode())


def _report_ended(running: dict[int, Forked]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        descriptor = running.pop(pid).status
        with contextlib.suppress(BrokenPipeError):  # a viewer that is gone
            os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _become_engine(request: dict[str, Any], standard: list[int]) -> NoReturn:
    """In the forked process: what a new interpreter in a session of its own would be."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    fork_engines()
    sys.argv[1:] = request["arguments"]
    run_to_end(request["module"])


def run_to_end(module: str) -> NoReturn:
    """Run a module in a forked process, which ends as an interpreter does, but takes no module apart.

    That copied all memory that was forked: half a second of processor time where torch is imported.
    """
    status: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    if isinstance(status, int):
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):  # their reader is gone; the normal end reports it
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
    sys.exit(status)  # type: ignore[arg-type]


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
