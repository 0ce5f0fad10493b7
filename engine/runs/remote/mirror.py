"""A mirror of the home folder of another machine: connected by a thread, which connects again when the connection drops.

Only the list of runs is mirrored, with both ends of each log, until a viewer opens a run; then its log follows, from where
it stopped if the connection dropped meanwhile. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.paths import EVENTS, RECORD
from epochtop.engine.runs.remote.connection import Connection, LostConnectionError
from epochtop.engine.runs.remote.files import MirroredFiles
from epochtop.engine.runs.remote.folder import new_folder
from epochtop.engine.runs.remote.host import Host
from epochtop.engine.runs.remote.logs import MirroredLogs
from epochtop.engine.runs.remote.machine import MachineFeed
from epochtop.engine.runs.remote.registry import register, unregister
from epochtop.engine.terminal.plain import plain_line
from epochtop.remote.frames import ProtocolError

if TYPE_CHECKING:
    from epochtop.remote.frames import Frame

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts to connect again; the last one repeats."""
POLL_S = 0.02
SHORT_BYTES = 4 << 20
"""Longest log that is fetched for the table of runs; a longer one arrives when the run is opened."""
AT_ONCE = 4
"""Most logs that are on their way for the table."""
CLOSE_S = 3.0
"""Longest wait for the thread."""
MANY_NOTICES = 20
REPLIES = 16
"""Most frames of a copy that wait to be written."""
COPYING = ("files", "chunk", "end", "refused")
"""Types of frames that answer :meth:`Mirror.ask`."""
LOGS = ("log", "rows", "left_out")
"""Types of frames about logs of other tools."""
MACHINE = ("machine", "sample")
"""Types of frames about the machine itself."""


class Mirror:
    """The runs of `host`, in `folder`. `on_line` gets what ssh prints while it connects the first time."""

    def __init__(self, host: Host, may_ask: bool = False, on_line: Callable[[str], object] | None = None) -> None:
        """Connects. Raises Invalid if that is impossible."""
        try:
            connection = _connect(host, may_ask, on_line)
        except LostConnectionError as error:
            raise Invalid("", str(error)) from None
        self._connection: Connection | None = connection
        hello = connection.hello
        self._host, self.home, self.machine = host, str(hello.get("home", "")), str(hello.get("host", host.name))
        self.folder, self._session = new_folder(host.name)
        self._files = MirroredFiles(self.folder, self.place)
        self._lock = threading.RLock()
        """Held while files, or what is known about them, change."""
        self.program = str(hello.get("program", ""))
        """The other machine's own epochtop, which can start runs; empty if there is none."""
        self._listed, self._closed = threading.Event(), threading.Event()
        self._retry_at, self._reason = 0.0, ""
        self._unconfirmed: dict[int, str] = {}
        """By number: commands that the other machine has not confirmed, as text."""
        self._awaited: dict[int, Queue[dict[str, Any]]] = {}
        """By number: changes whose answers are awaited."""
        self._number = self._asked = 0
        self._notices: list[str] = [f"{self.place} cannot be read: {hello['problem']}"] if hello.get("problem") else []
        self._replies: Queue[Frame | None] = Queue(REPLIES)
        self.opened_there = int(hello.get("opened", 0))
        """How many files and folders with logs of other tools are opened there."""
        self._logs = MirroredLogs(self.folder, self._request, lambda notice: self._notify(f"{host.name}: {notice}"))
        self.machine_feed = MachineFeed(self._request)
        register(self.folder, self)
        self._thread = threading.Thread(target=self._work, name=f"mirror {host.name}", daemon=True)
        self._thread.start()

    # --- what readers ask ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The machine, as the user writes it."""
        return self._host.name

    @property
    def place(self) -> str:
        """The home folder there, as people write it."""
        return f"{self._host.name}:{self.home}"

    @property
    def problem(self) -> str:
        """Why nothing arrives now; empty while the connection works."""
        if self._connection is not None:
            return ""
        wait_s = max(0.0, self._retry_at - time.monotonic())
        retry = f"retrying in {wait_s:.0f} s" if wait_s >= 1.0 else "retrying"
        return f"connection to {self._host.name} lost, {retry}{f' · {self._reason}' if self._reason else ''}"

    def wait_until_listed(self, seconds: float | None = None) -> bool:
        """Wait until all runs have been listed once, or the connection is lost. False if neither happens in time."""
        return self._listed.wait(seconds)

    def follow(self, run: Path, *, whole: bool = False) -> None:
        """Keep the log of a run complete from now on, without waiting for it. `whole` includes the middle of a long log."""
        run_id = self._id(run)
        with self._lock:
            followed = self._files.followed.get(run_id)
            if followed is not None and (followed.whole or not whole):
                return
            self._files.follow(run_id, whole)
            with contextlib.suppress(OSError):  # the next connection asks again
                self._ask_to_follow(run_id)

    def follow_soon(self, run: Path) -> bool:
        """Follow a run of a table if its log is short and few others are on their way. False if it is to be asked later."""
        with self._lock:
            if self._files.sizes.get(self._id(run), 0) > SHORT_BYTES:
                return True
            waiting = sum(not followed.complete for followed in self._files.followed.values())
            if waiting < AT_ONCE:
                self.follow(run)
            return waiting < AT_ONCE

    def wait_until_complete(self, run: Path) -> None:
        """Wait until everything that a followed run has recorded is here. Raises Invalid if the connection is lost."""
        while not self._closed.is_set():
            with self._lock:
                followed = self._files.followed.get(self._id(run))
                if followed is None or followed.complete:
                    return
            if self.problem:
                raise Invalid("", self.problem)
            time.sleep(POLL_S)

    def is_abridged(self, run: Path) -> bool:
        """Whether only parts of a run's log are here."""
        with self._lock:
            followed = self._files.followed.get(self._id(run))
            return followed is None or not followed.complete or followed.places[EVENTS].skipped > 0

    def opened_paths(self) -> list[Path]:
        """Files and folders that were opened on the other machine, as far as their logs are here."""
        with self._lock:
            return self._logs.paths()

    def send(self, run: Path, line: bytes) -> None:
        """Have a command appended to a run. Raises OSError if there is no connection."""
        with self._lock:
            connection = self._connection
            if connection is None:
                raise ConnectionError(0, f"there is no connection to {self._host.name}, so the command was not sent")
            self._number += 1
            try:
                connection.send({"type": "command", "run": self._id(run), "number": self._number}, line)
            except OSError:  # the thread has not noticed it yet
                raise ConnectionError(
                    0, f"the connection to {self._host.name} is lost; the command was not sent"
                ) from None
            self._unconfirmed[self._number] = _name_of(line)

    def replace_record(self, run: Path, content: bytes) -> None:
        """Have the record of a run replaced, and wait for it. Raises Invalid."""
        digest = hashlib.sha256((run / RECORD).read_bytes()).hexdigest()
        self._change(run, {"type": "record", "digest": digest}, content)

    def delete(self, run: Path) -> None:
        """Have a run deleted, and wait for it. Raises Invalid."""
        self._change(run, {"type": "delete"})

    def _change(self, run: Path, header: dict[str, Any], body: bytes = b"") -> None:
        answer = self._answer_to({**header, "run": self._id(run)}, body)
        if answer.get("error"):
            raise Invalid("", f"{self.name} did not change {run.name}: {answer['error']}")

    def run_program(self, arguments: Sequence[str]) -> str:
        """Have :attr:`program` run a command, and wait for it. Returns the first word it prints. Raises Invalid."""
        answer = self._answer_to({"type": "start", "arguments": list(arguments)})
        if answer.get("error"):
            raise Invalid("", plain_line(str(answer["error"])))
        return str(answer.get("run"))

    def start(self, arguments: Sequence[str]) -> Path:
        """Have :attr:`program` start or resume a run, and wait for it. Raises Invalid."""
        try:
            run = self._files.path(self.run_program(arguments))
        except ProtocolError as error:
            raise Invalid("", str(error)) from None
        if not run.exists():
            raise Invalid("", f"there is no new run on {self.name}")
        return run

    def _answer_to(self, header: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
        """Ask for a change and wait for the answer. Raises Invalid without a connection."""
        answer: Queue[dict[str, Any]] = Queue(1)
        with self._lock:
            self._number += 1
            try:
                self._request({**header, "number": self._number}, body)
            except OSError:
                raise Invalid("", f"there is no connection to {self.name}, so nothing was changed") from None
            self._awaited[self._number] = answer
        return answer.get()

    def take_notices(self) -> list[str]:
        """What users must know since the last call, one sentence each."""
        with self._lock:
            notices, self._notices = self._notices, []
            return notices

    def ask(self, header: dict[str, Any]) -> None:
        """Ask for the list of files of a run, or for one of them; :meth:`reply` gets what comes. Raises OSError."""
        while True:
            with contextlib.suppress(Empty):  # what an earlier connection has left
                self._replies.get_nowait()
                continue
            break
        self._asked += 1
        self._request({**header, "number": self._asked})

    def reply(self) -> Frame | None:
        """The next frame of an answer; None if the connection was lost."""
        return self._replies.get()

    def close(self) -> None:
        """Disconnect and remove the mirror."""
        self._closed.set()
        connection = self._connection
        if connection is not None:
            connection.end()
        self._thread.join(CLOSE_S)
        if connection is not None:
            connection.close()
        unregister(self.folder)
        _give_up(self._awaited)
        self.machine_feed.close()
        self._files.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._session)

    def _id(self, run: Path) -> str:
        return run.relative_to(self.folder).as_posix()

    def _request(self, header: dict[str, Any], body: bytes = b"") -> None:
        connection = self._connection
        if connection is None:
            raise ConnectionError(0, self.problem)
        connection.send(header, body)

    def _notify(self, notice: str) -> None:
        with self._lock:
            if len(self._notices) < MANY_NOTICES:
                self._notices.append(notice)

    def _ask_to_follow(self, run_id: str) -> None:
        connection, followed = self._connection, self._files.followed[run_id]
        if connection is not None:
            known = self._files.known(run_id)
            connection.send({"type": "follow", "run": run_id, "whole": followed.whole, "known": known})

    # --- the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        attempt = 0
        while not self._closed.is_set():
            try:
                if self._connection is None:
                    self._connect_again()
                attempt = 0
                self._receive()
            except (LostConnectionError, ProtocolError, OSError, KeyError, TypeError, ValueError) as error:
                if self._closed.is_set():
                    return
                self._lose(str(error), BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
                self._closed.wait(max(0.0, self._retry_at - time.monotonic()))

    def _receive(self) -> None:
        connection = self._connection
        assert connection is not None
        while not self._closed.is_set():
            self._take(*connection.receive())

    def _connect_again(self) -> None:
        connection = _connect(self._host)
        with self._lock:
            self._connection = connection
            self._files.expect_list()
            for run_id in self._files.followed:
                self._ask_to_follow(run_id)
        self.machine_feed.ask_again()
        self._logs.ask_again()

    def _lose(self, reason: str, wait_s: float) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._reason, self._retry_at = reason, time.monotonic() + wait_s
            unconfirmed, self._unconfirmed = self._unconfirmed, {}
            awaited, self._awaited = self._awaited, {}
        _give_up(awaited)
        for command in unconfirmed.values():
            self._notify(
                f"the connection was lost before {self._host.name} confirmed {command}; it may not have arrived"
            )
        if connection is not None:
            connection.close()
        self._listed.set()
        while True:
            with contextlib.suppress(Empty):
                self._replies.get_nowait()
                continue
            break
        self._replies.put(None)

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        kind = header["type"]
        if kind in COPYING:
            if header.get("number") == self._asked:
                self._replies.put((header, body))
            return
        if kind in MACHINE:
            self.machine_feed.take(kind, body)
            return
        with self._lock:
            if kind == "run":
                self._files.take_run(header, body)
            elif kind == "part":
                self._take_part(header, body)
            elif kind in LOGS:
                self._logs.take(header, body)
            elif kind == "state":
                self._files.take_state(header)
            elif kind == "gone":
                self._files.remove(header["run"])
            elif kind == "sent":
                self._take_confirmation(header)
            elif kind == "listed":
                self._files.take_list_end()
                self._listed.set()

    def _take_part(self, header: dict[str, Any], body: bytes) -> None:
        if header["run"] not in self._files.followed:  # it was removed while this was on its way
            return
        name = header["run"]
        if self._files.take_part(header, body):
            self._notify(f"the log of {name} was replaced on {self._host.name}; open the run again")
        if header["skipped"] and header["file"] == EVENTS:
            size = header["skipped"] / (1 << 20)
            self._notify(
                f"{name} is long: {size:,.0f} MiB of its middle are not shown; `epochtop pull` copies all of it"
            )

    def _take_confirmation(self, header: dict[str, Any]) -> None:
        answer = self._awaited.pop(header.get("number", 0), None)
        if answer is not None:
            answer.put(header)
            return
        command = self._unconfirmed.pop(header.get("number", 0), "the command")
        if header.get("error"):
            self._notify(f"{self._host.name} cannot take {command}: {header['error']}")


def _connect(host: Host, may_ask: bool = False, on_line: Callable[[str], object] | None = None) -> Connection:
    """A connection whose agent has answered. Raises LostConnectionError."""
    connection = Connection(host, may_ask, on_line)
    try:
        connection.receive()
    except BaseException:
        connection.close()
        raise
    return connection


def _give_up(awaited: dict[int, Queue[dict[str, Any]]]) -> None:
    """End the waits for answers that cannot come any more."""
    for answer in awaited.values():
        answer.put({"error": "the connection was lost before it answered; look at the runs before you try again"})
    awaited.clear()


def _name_of(line: bytes) -> str:
    """What a command is called."""
    return str(json.loads(line).get("type", "the command"))
