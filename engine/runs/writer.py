"""Writing a run directory: creating it, locking it, appending to it.

The directory is the only channel between an engine and its viewers: the engine appends events, viewers append commands,
and everything else is read. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import IO

import msgspec

from epochtop.engine.protocol.commands import AnyCommand, decode_command
from epochtop.engine.protocol.events import UNREADABLE, encode
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.files import clean_home, clean_run, write_atomically
from epochtop.engine.runs.heartbeat import is_beating
from epochtop.engine.runs.paths import (
    CHECKPOINTS,
    COMMANDS,
    EVENTS,
    HEARTBEAT,
    LOCK,
    OUTPUT,
    RECORD,
    home_problem,
    user_name,
)
from epochtop.engine.runs.reader import READ_BYTES, read_record
from epochtop.engine.runs.regular import check_regular, open_file
from epochtop.engine.runs.remote.registry import mirror_of
from epochtop.recording import directory


def make_home(folder: Path) -> None:
    """Create the home folder, private to the user. Raises Invalid if runs cannot be written there."""
    if problem := home_problem(folder):
        raise Invalid("", problem)


def create(
    folder: Path, spec: RunSpec, versions: dict[str, str], created: float, experiment: ExperimentRequest | None = None
) -> tuple[Path, IO[bytes]]:
    """Create a run directory and lock it.

    Returns its path and the open lock file, which the engine keeps open as long as it is alive. The directory is filled
    under a temporary name and then renamed, so that no viewer sees it incomplete. Raises Invalid if the home folder cannot
    be written.
    """
    make_home(folder)
    clean_home(folder)
    record = RunRecord(
        spec=spec,
        experiment=experiment,
        created=created,
        host=socket.gethostname(),
        user=user_name(),
        pid=os.getpid(),
        versions=versions,
    )
    first = experiment.name if experiment else stem(spec)
    try:
        path, lock = directory.create(str(folder), first, encode(record), (CHECKPOINTS,))
    except OSError as error:
        raise Invalid("", f"cannot create a run in {folder}: {error.strerror}") from None
    return Path(path), lock


def stem(spec: RunSpec) -> str:
    """The first part of a run's id: the dataset or the task's file, and the model."""
    file, _, _ = spec.task.rpartition(":")
    source = file or spec.dataset.removeprefix(f"{spec.source}:")
    words = "".join(letter if letter.isalnum() else "-" for letter in Path(source).stem)[:24].strip("-").lower()
    return f"{words or 'run'}-{'own' if file else spec.model}"


def reopen(run: Path) -> IO[bytes]:
    """Lock a run whose engine has ended, remove its partial files, record this process as its engine, and end an
    incomplete line of the log.

    Returns the open lock file, which the engine keeps open as long as it is alive. Raises Invalid if another engine holds
    the lock, or if the run cannot be written.
    """
    record = read_record(run)
    still_running = Invalid("", f"{run.name} is still running; watch it with `epochtop attach {run.name}`")
    if is_beating(run):
        raise still_running
    try:
        for name in (LOCK, EVENTS, COMMANDS, OUTPUT, HEARTBEAT):
            with contextlib.suppress(FileNotFoundError):
                check_regular(run / name)
        lock = directory.lock_again(str(run))
        clean_run(run)
        write_atomically(
            run / RECORD, encode(msgspec.structs.replace(record, pid=os.getpid(), host=socket.gethostname()))
        )
    except BlockingIOError:
        raise still_running from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise Invalid("", f"cannot resume {run}{where}: {error.strerror}") from None
    return lock


def send(run: Path, command: AnyCommand) -> None:
    """Append a command to a run. One write per line, so that commands of several viewers never mix. Raises OSError."""
    mirror = mirror_of(run)
    if mirror is not None:
        mirror.send(run, encode(command) + b"\n")
        return
    check_regular(run / COMMANDS)
    descriptor = os.open(run / COMMANDS, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    try:
        os.write(descriptor, encode(command) + b"\n")
    finally:
        os.close(descriptor)


def commands_end(run: Path) -> int:
    """Size of the commands so far, in bytes; 0 if they cannot be read."""
    try:
        return (run / COMMANDS).stat().st_size
    except OSError:
        return 0


class Inbox:
    """Reads the commands of a run as they arrive, for its engine. Skips unreadable lines."""

    def __init__(self, run: Path, start: int = 0) -> None:
        """Skips the first `start` bytes: commands to a run that had ended (:func:`commands_end`)."""
        self._file = open_file(run / COMMANDS)
        self._file.seek(start)
        self._rest = b""

    def read(self) -> list[AnyCommand]:
        """The commands since the last call."""
        new = self._file.read(READ_BYTES)
        if not new:
            return []
        *lines, self._rest = (self._rest + new).split(b"\n")
        commands: list[AnyCommand] = []
        for line in lines:
            with contextlib.suppress(*UNREADABLE):
                commands.append(decode_command(line))
        return commands

    def close(self) -> None:
        """Close the file."""
        self._file.close()
