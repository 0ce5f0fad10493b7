"""The loop on the other machine: lists its runs, follows those that are looked at, and hands commands to them.

One thread reads requests; the main thread answers and writes. It ends when the connection does. What it may change is in
:mod:`epochtop.remote.changing`. Imports the standard library and modules that are sent with it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import cast

from epochtop.recording import directory
from epochtop.remote import changing, copying
from epochtop.remote.following import FollowedRun
from epochtop.remote.frames import PROTOCOL, Decoder, ProtocolError, encode, is_file_path, is_run_id
from epochtop.remote.listing import Listing
from epochtop.remote.machine import MachineWatch
from epochtop.remote.opened import OpenedFolders
from epochtop.remote.starting import Starts, find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedReader
    from typing import IO, Any

    from epochtop.remote.frames import Frame

POLL_S = 0.1
"""Seconds between two looks at the files of a live run that is followed."""
LIST_S = 2.0
"""Least seconds between two listings."""
SHARE = 20
"""Listings take at most one part in SHARE of the time."""
TICK_S = 2.0
"""Seconds between two signs of life."""


def main(options: dict[str, Any]) -> None:
    """Serve the viewer at the other end of standard input and output. `options`: marker, home (empty: the usual one)."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write into the frames
    home = os.path.expanduser(options["home"] or directory.home())
    output.write(options["marker"].encode("ascii"))
    with contextlib.suppress(BrokenPipeError):
        Agent(Path(os.path.abspath(home)), output).serve(_requests())
    os._exit(0)  # the other thread waits for input


def _requests() -> Queue[Frame]:
    """What the viewer asks for, as it comes."""
    requests: Queue[Frame] = Queue()

    def read() -> None:
        decoder, source = Decoder(), cast("BufferedReader", sys.stdin.buffer)
        try:
            while data := source.read1(1 << 16):
                for frame in decoder.feed(data):
                    requests.put(frame)
        except (OSError, ProtocolError):
            pass
        os._exit(0)

    threading.Thread(target=read, name="requests", daemon=True).start()
    return requests


class Agent:
    """Serves the runs of one home folder."""

    def __init__(self, home: Path, output: IO[bytes]) -> None:
        self._home, self._output = home, output
        self._listing = Listing(home)
        self._followed: dict[str, FollowedRun] = {}
        self._program = find_program()
        self._starts = Starts(self._program, str(home))
        self._opened: OpenedFolders | None = None
        """None until the viewer asks for logs of other tools."""
        self._machine: MachineWatch | None = None
        """None until the viewer asks about the machine."""
        self._next_listing = self._next_tick = 0.0

    def serve(self, requests: Queue[Frame]) -> None:
        """Work until the connection ends. Raises BrokenPipeError then."""
        facts = {"home": str(self._home), "host": directory.host_name(), "problem": why_unreadable(self._home)}
        opened = OpenedFolders(self._home, {}).count_roots()
        python = sys.version.split()[0]
        self._send(
            {
                "type": "hello",
                "protocol": PROTOCOL,
                "python": python,
                "program": self._program,
                "opened": opened,
                **facts,
            }
        )
        while True:
            sent = self._look()
            with contextlib.suppress(Empty):
                self._answer(*requests.get(timeout=0.0 if sent else POLL_S))
                while True:
                    self._answer(*requests.get_nowait())

    def _send(self, header: dict[str, Any], body: bytes = b"") -> None:
        self._output.write(encode(header, body))
        self._output.flush()

    def _look(self) -> bool:
        """Send what is new. True if there may be more."""
        now, sent = time.monotonic(), False
        listing = now >= self._next_listing
        if listing:
            self._list()
        for followed in self._followed.values():
            if listing or not followed.settled:
                for header, body in followed.next_frames():
                    self._send(header, body)
                    sent = True
        for header, body in self._opened.next_frames() if self._opened is not None else ():
            self._send(header, body)
            sent = True
        for answer in self._starts.answers():
            self._list()
            self._send(answer)
        sample = self._machine.due_sample() if self._machine is not None else None
        if sample is not None:
            self._send(*sample)
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            self._send({"type": "tick"})
        return sent

    def _list(self) -> None:
        start = time.monotonic()
        for header, body in self._listing.changes(self._followed):
            self._send(header, body)
        self._send({"type": "listed"})
        took = time.monotonic() - start
        self._next_listing = time.monotonic() + max(LIST_S, SHARE * took)

    def _answer(self, header: dict[str, Any], body: bytes) -> None:
        if header["type"] == "machine":
            self._watch_machine(header.get("engine_pid"))
            return
        if header["type"] == "logs":
            self._opened = OpenedFolders(self._home, header.get("known") or {})
            return
        if header["type"] == "start":
            self._starts.begin(header.get("number"), header.get("arguments") or [])
            return
        run_id = header.get("run")
        if not is_run_id(run_id):
            return
        run = self._home / str(run_id)
        if header["type"] == "follow":
            known = header.get("known") or {}
            self._followed[str(run_id)] = FollowedRun(self._home, str(run_id), known, bool(header.get("whole")))
        elif header["type"] == "command":
            self._confirm(header, changing.append_command(run, body))
        elif header["type"] == "record":
            self._confirm(header, changing.replace_record(run, str(header.get("digest")), body), lists=True)
        elif header["type"] == "delete":
            self._confirm(header, changing.delete_run(run), lists=True)
        elif header["type"] == "files":
            files, _ = copying.list_files(run, str(run_id))
            self._send({**files, "number": header.get("number")})
        elif header["type"] == "read" and is_file_path(header.get("path")):
            for part, content in copying.read_file(run, header["path"], int(header["offset"]), int(header["size"])):
                self._send({**part, "number": header.get("number")}, content)

    def _confirm(self, request: dict[str, Any], error: str, lists: bool = False) -> None:
        """Tell whether a change was made; with `lists`, after the list of runs that shows it."""
        if lists and not error:
            self._list()
        self._send({"type": "sent", "number": request.get("number"), "error": error})

    def _watch_machine(self, engine_pid: object) -> None:
        """Send figures about the machine from now on, with the load of a process."""
        if self._machine is None:
            self._machine = MachineWatch()
            self._send(*self._machine.identity())
        self._machine.engine_pid = engine_pid if isinstance(engine_pid, int) and engine_pid > 0 else None


def why_unreadable(folder: Path) -> str:
    """Why a folder cannot be read; empty if it can be, or does not exist yet."""
    try:
        os.listdir(folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""
