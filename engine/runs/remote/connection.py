"""One ssh process with the agent at its other end: frames in both directions, and why it ended.

Blocks, so only the thread of a mirror receives. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epochtop.engine.runs.remote.bundle import source
from epochtop.engine.runs.remote.host import TOO_OLD_STATUS, Host
from epochtop.engine.terminal.plain import plain_line
from epochtop.remote.frames import PROTOCOL, Decoder, ProtocolError, encode

if TYPE_CHECKING:
    from epochtop.remote.frames import Frame

SILENT_S = 15.0
"""The agent sends something every two seconds. After this time without anything, the connection is lost."""
START_S = 60.0
"""Longest wait for the first frame where there is no user to ask for a password."""
END_S = 2.0
"""Longest wait for the end of the ssh process."""
READ_BYTES = 1 << 18
NO_PROGRAM_STATUS = 127
"""Exit status of a shell that did not find a program."""
LONGEST_REASON = 300


class LostConnectionError(Exception):
    """The connection ended, or there never was one; the message says why, for people."""


class Connection:
    """Starts ssh at once. `may_ask` lets it ask for a password on the terminal; `on_line` gets what it prints meanwhile."""

    def __init__(self, host: Host, may_ask: bool, on_line: Callable[[str], object] | None = None) -> None:
        """Raises LostConnectionError if there is no ssh command."""
        self._host, self._may_ask, self._on_line = host, may_ask, on_line
        marker = f"\0epochtop {secrets.token_hex(8)}\n"
        self._decoder, self._frames = Decoder(marker.encode("ascii")), deque["Frame"]()
        self._lines: deque[str] = deque(maxlen=20)
        """The last lines that ssh and the other machine printed on standard error."""
        self._sending = threading.Lock()
        self.hello: dict[str, Any] = {}
        """What the other machine says about itself; empty before the first frame."""
        command = host.command(may_ask)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ssh to the machine that the user names, see parse_host
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=not may_ask,  # no terminal on which ssh could ask in the middle of the app
            )
        except OSError as error:
            raise LostConnectionError(
                f"cannot start {command[0]}: {error.strerror}; install OpenSSH's client"
            ) from None
        self._errors = threading.Thread(target=self._read_errors, name="ssh errors", daemon=True)
        self._errors.start()
        program = source({"marker": marker, "home": host.home})
        # Not here: a shell that prints without end reads nothing.
        threading.Thread(target=self._start_agent, args=(program,), name="ssh start", daemon=True).start()

    # --- sending -----------------------------------------------------------------------------------------

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send a frame. Raises OSError if the process has ended."""
        self._write(encode(header, body))

    def _start_agent(self, program: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # if the process has ended, `receive` says why
            self._write(program)

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with self._sending:
            view = memoryview(data)
            while view:
                view = view[self._process.stdin.write(view) :]

    # --- receiving ---------------------------------------------------------------------------------------

    def receive(self) -> Frame:
        """The next frame. Raises LostConnectionError."""
        while not self._frames:
            self._read()
        header, body = self._frames.popleft()
        if not self.hello:
            self._greet(header)
        return header, body

    def _read(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        patience_s = SILENT_S if self.hello else None if self._may_ask else START_S
        ready = select.select([descriptor], [], [], patience_s)[0]
        if not ready:
            raise LostConnectionError(f"no answer for {patience_s:g} s")
        data = os.read(descriptor, READ_BYTES)
        if not data:
            raise self._why_it_ended()
        try:
            self._frames += self._decoder.feed(data)
        except ProtocolError as error:
            raise LostConnectionError(f"cannot understand {self._host.name}: {error}") from None

    def _greet(self, header: dict[str, Any]) -> None:
        if header["type"] != "hello" or header.get("protocol") != PROTOCOL:
            version = header.get("protocol")
            raise LostConnectionError(f"{self._host.name} speaks version {version!r} of the protocol, not {PROTOCOL}")
        self.hello, self._on_line = header, None

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = plain_line(line[: 4 * LONGEST_REASON].decode("utf-8", "replace").strip())[:LONGEST_REASON]
            if text:
                self._lines.append(text)
                if self._may_ask and self._on_line is not None:
                    self._on_line(text)

    def _why_it_ended(self) -> LostConnectionError:
        """What the exit status and the last line on standard error tell."""
        name, status = self._host.name, self._status()
        self._errors.join(END_S)
        last = self._lines[-1] if self._lines else ""
        if status == TOO_OLD_STATUS and not self.hello:
            return LostConnectionError(f"{name} has Python {last}; epochtop needs 3.9 or later there, as `python3`")
        if status == NO_PROGRAM_STATUS and not self.hello:
            return LostConnectionError(f"{name} has no `python3`; install Python 3.9 or later there")
        if self.hello:
            return LostConnectionError(last)
        what = f"cannot connect to {name}" if status == 255 else f"cannot start on {name} (exit status {status})"
        return LostConnectionError(f"{what}{f': {last}' if last else ''}; try `ssh {name}`")

    def _status(self) -> int | None:
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return None

    # --- the end -----------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the process, so that a wait for it returns."""
        self._process.terminate()
        if self._status() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the process and close its pipes. No other thread may receive any more."""
        self.end()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()  # ends what still prints
        self._errors.join(END_S)
        if not self._errors.is_alive():
            self._process.stderr.close()
