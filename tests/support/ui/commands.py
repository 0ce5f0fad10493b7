"""`epochtop ARGUMENTS` as a process that is forked from one that has imported all of epochtop.tui, which takes a second.

What only a new interpreter can show (its encodings, its first imports) needs :data:`tests.support.ui.terminals.APP`, a shell,
or the installed wheel.

`python -P commands.py FD` is the process that forks: a script, so that the import path of the commands stays as it is. It
listens on the socket FD. A request is a JSON object with `arguments`, `folder`, `environment` and `terminal`, with the
descriptors of standard input, output, error and of a pipe for the wait status. The answer is the process id. It ends when its
standard input does, and never imports torch.
"""

from __future__ import annotations

import gc
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from fcntl import ioctl
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[3]
MOST_BYTES = 2**18
AT_START = ("PYTHON", "LD_", "LANG", "LC_", "TEXTUAL_", "OMP_")
"""Beginnings of variables that count when an interpreter or a library starts, which a forked process has behind it."""


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether these variables, on top of those of this process, mean the same to a forked process and to a new one."""
    return not any(name.startswith(AT_START) for name in environment)


class Command(subprocess.Popen[Any]):
    """`epochtop ARGUMENTS`; a :class:`subprocess.Popen` of a process that another one forks."""

    def __new__(cls, *_arguments: object, **_options: object) -> Command:
        return object.__new__(cls)  # not what prefork has Popen make

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        terminal: bool = False,
        folder: Path | None = None,
        **options: Any,
    ) -> None:
        """With `terminal`, standard input becomes the controlling terminal of a new session. `options` are those of Popen."""
        self._request = {
            "arguments": arguments,
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
            "terminal": terminal,
        }
        super().__init__(["epochtop", *arguments], **options)

    def _execute_child(self, *given: Any) -> None:  # type: ignore[override]
        """Have the process forked; Popen closes what it opened for it."""
        pipes = given[10:16]  # of standard input, output and error: the end that is read, then the one that is written
        ends = pipes[0], pipes[3], pipes[5]
        standard = [own if end == -1 else end for own, end in enumerate(ends)]
        self._status, writing = os.pipe()
        try:
            self.pid = _ask(self._request, [*standard, writing])
            self._child_created = True
        finally:
            os.close(writing)
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        status = int(os.read(self._status, 16))
        os.close(self._status)
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with self._waitpid_lock:  # type: ignore[attr-defined]
            if self.returncode is None:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def run(*arguments: str, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end without an input. Its output and its errors are texts."""
    chosen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with Command(*arguments, **chosen) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _ask(request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(_server())
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
        return int(connection.recv(64))


@cache
def _server() -> str:
    """The address of the process that forks, which is started now. It ends with this process; its children do not."""
    from tests.support.processes.prefork import start_listening  # the process that forks does not find it

    name = f"epochtop-commands-{os.getpid()}"
    start_listening(name, "-P", __file__)
    return f"\0{name}"


# --- the process that forks ---------------------------------------------------------------------------------


def serve(listener: socket.socket) -> None:
    """Fork a command for each request and pass its wait status on."""
    _import_all()
    from tests.support.processes import prefork

    running: dict[int, tuple[int, int]] = {}
    """By descriptor of the process: its id, and the pipe for its status."""
    while True:
        ready, _, _ = select.select((0, listener, *running), [], [])
        for descriptor in running.keys() & set(ready):
            pid, pipe = running.pop(descriptor)
            with suppress(BrokenPipeError):  # nobody asks any more
                os.write(pipe, str(os.waitpid(pid, 0)[1]).encode())
            os.close(descriptor)
            os.close(pipe)
        if 0 in ready:
            return
        if listener in ready:
            connection, _ = listener.accept()
            data, descriptors = prefork.hear(connection)
            if not data:
                connection.close()
                continue
            *standard, pipe = descriptors
            pid = os.fork()
            if not pid:
                for other in (connection.fileno(), listener.fileno(), pipe):
                    os.close(other)
                for descriptor, (_, other) in running.items():
                    os.close(descriptor)
                    os.close(other)
                _become_command(json.loads(data), standard)
            running[os.pidfd_open(pid)] = pid, pipe
            prefork.tell(connection, str(pid))
            connection.close()
            for descriptor in standard:
                os.close(descriptor)


def _import_all() -> None:
    """Import what commands import at their start and later; none of their garbage collections looks at it."""
    gc.disable()
    import importlib.metadata

    import plotext  # noqa: F401
    import textual.drivers.linux_driver
    import textual.layouts.factory
    import textual.scrollbar
    import textual.widgets

    import epochtop.tui
    from tests.support.processes import prefork  # noqa: F401

    for module in pkgutil.walk_packages(epochtop.tui.__path__, "epochtop.tui."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("RichLog", "HelpPanel"):
        getattr(textual.widgets, name)
    from epochtop.tui.cli.main import run

    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        run(["runs", "--help"])  # the argument parser imports while it works
    assert "torch" not in sys.modules
    sys.path.remove(str(ROOT))
    gc.collect()
    gc.freeze()
    gc.enable()


def _become_command(request: dict[str, Any], standard: list[int]) -> NoReturn:
    """In the forked process: what `python -P -m epochtop` would be."""
    if request["terminal"]:
        os.setsid()
        ioctl(standard[0], termios.TIOCSCTTY, 0)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    for descriptor in set(standard) - {0, 1, 2}:
        os.close(descriptor)
    sys.stdin = sys.__stdin__ = _stream(0, "r")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, "w")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "w")  # type: ignore[misc]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    from tests.support.processes import prefork

    if prefork.ADDRESS in os.environ:
        prefork.fork_engines()
    sys.argv[1:] = request["arguments"]
    prefork.run_to_end("epochtop")


def _stream(descriptor: int, mode: str) -> IO[str]:
    """A standard stream as an interpreter opens it in a UTF-8 locale."""
    errors = "backslashreplace" if descriptor == 2 else "strict"
    stream = open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)
    assert isinstance(stream, io.TextIOWrapper)
    stream.reconfigure(line_buffering=descriptor == 2 or os.isatty(descriptor))
    return stream


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, str(ROOT))
    serve(socket.socket(fileno=int(sys.argv[1])))
