"""`--host`: the runs of another machine in place of those in the home folder. Closes the connection at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import index, paths
from epochtop.engine.terminal.output import is_terminal, write_error

if TYPE_CHECKING:
    from epochtop.engine.runs.remote.mirror import Mirror

HOST_METAVAR = "USER@BOX"
HOST_HELP = "show the runs of another machine over ssh, as `user@box` or `user@box:/home/folder`"
HostFlag = Annotated[str, tyro.conf.arg(name="host", metavar=HOST_METAVAR, help=HOST_HELP)]
COMMANDS = ("runs", "attach", "stop", "export", "pull")
"""Commands that take `--host`."""
FIRST_LIST_S = 2.0
"""Longest wait for the list of runs before the app opens; it may grow later."""


def with_host(arguments: list[str], commands: Container[str]) -> list[str]:
    """A command line with `--host BOX` after its command, where it may also stand before it.

    Raises Invalid if the command works on this machine only. `commands` are all commands.
    """
    host, rest = _leading_host(arguments)
    if host and rest[:1] and rest[0] in commands:
        arguments = [*rest, "--host", host]
    command = arguments[0] if arguments else ""
    if command not in commands or command in COMMANDS:
        return arguments
    if not host and command != "run":  # `run` passes what follows to the user's own program
        host = next(filter(None, (_leading_host(arguments[place:])[0] for place in range(1, len(arguments)))), "")
    if host:
        machine = host.partition(":")[0]
        raise Invalid("", f"`epochtop {command}` works on this machine only; log in to {machine} to use it there")
    return arguments


def _leading_host(arguments: list[str]) -> tuple[str, list[str]]:
    """The value of `--host` if a command line begins with it, and what follows; an empty text if it does not."""
    flag, equals, value = arguments[0].partition("=") if arguments else ("", "", "")
    if flag != "--host":
        return "", arguments
    return (value, arguments[1:]) if equals else ("".join(arguments[1:2]), arguments[2:])


@contextlib.contextmanager
def mirror_of_host(host: str) -> Iterator[Mirror]:
    """A mirror of the runs of `host`. Raises Invalid if it cannot be reached."""
    from epochtop.engine.runs.remote.host import parse_host
    from epochtop.engine.runs.remote.mirror import Mirror

    with contextlib.closing(
        Mirror(parse_host(host), sys.stdin.isatty(), lambda line: write_error(f"{line}\n"))
    ) as mirror:
        yield mirror
        _report(mirror)


@contextlib.contextmanager
def runs_home(host: str, *, reports_logs: bool = False) -> Iterator[Path]:
    """The home folder of this machine, or with `host` the folder that mirrors its runs, once all are listed.

    `reports_logs` says at the end that logs of other tools, which only the app transfers, are left out.
    """
    if not host:
        yield paths.home()
        return
    with mirror_of_host(host) as mirror:
        list_all(mirror)
        yield mirror.folder
        if reports_logs and mirror.opened_there:
            write_error(f"epochtop: logs of other tools are not listed; `epochtop --host {host}` shows them\n")


def list_all(mirror: Mirror) -> None:
    """Wait until all runs are listed. Raises Invalid if the connection is lost meanwhile."""
    mirror.wait_until_listed()
    if mirror.problem:
        raise Invalid("", mirror.problem)


def _report(mirror: Mirror) -> None:
    for notice in mirror.take_notices():
        write_error(f"epochtop: {notice}\n")


def run_remote_app(host: str, run: str = "", start: bool = False, spec: RunSpec | None = None) -> int:
    """Open the app with the runs of `host`, and with `run` open if it is not empty. Returns its exit status.

    `start` starts a run of `spec` there.
    """
    if not is_terminal() or not sys.stdin.isatty():
        raise Invalid("", "the app needs a terminal; `epochtop runs --host` and `epochtop pull` work without one")
    from epochtop.tui.app.launch import run_app

    with mirror_of_host(host) as mirror:
        if run:
            list_all(mirror)
            return run_app(attach=index.find_any(mirror.folder, run, prefers_live=True), mirror=mirror)
        mirror.wait_until_listed(FIRST_LIST_S)
        return run_app(start=start, spec=spec, mirror=mirror)


def fetch(runs: Sequence[Path]) -> None:
    """Wait until the whole logs of runs are here, if they are on another machine. Raises Invalid if the connection is lost."""
    from epochtop.engine.runs.remote.registry import mirror_of

    for run in runs:
        mirror = mirror_of(run)
        if mirror is not None:
            mirror.follow(run, whole=True)
            mirror.wait_until_complete(run)
