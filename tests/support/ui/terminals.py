"""A terminal as an app sees one: a pseudo-terminal with somebody who reads it, types, resizes and hangs up."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pyte

from tests.support.engines import HANGING_S
from tests.support.processes.prefork import EPOCHTOP, forked
from tests.support.ui.commands import Command

APP = EPOCHTOP
"""The command `epochtop` in a new interpreter."""

CTRL_C, CTRL_P, CTRL_Q, CTRL_S, CTRL_X, CTRL_Z = "\x03", "\x10", "\x11", "\x13", "\x18", "\x1a"
ENTER, ESCAPE, TAB, BACKSPACE = "\r", "\x1b", "\t", "\x7f"
UP, DOWN, LEFT, RIGHT, HOME, END, DELETE = (f"\x1b[{key}" for key in ("A", "B", "D", "C", "H", "F", "3~"))

TAKE_THE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Makes standard input the controlling terminal; `preexec_fn` would do it in a fork of a process with threads."""

FRAME_BEGINS, FRAME_ENDS = b"\x1b[?2026h", b"\x1b[?2026l"
ASKED, ANSWER = b"\x1b[?2026$p", b"\x1b[?2026;2$y"
"""Whether the terminal shows complete frames only (synchronized output), and that it does."""

ENTER_SCREEN = b"\x1b[?1049h"
"""Switches to the alternate screen."""

Wanted = str | Callable[[str], bool]


class Terminal:
    """Runs a command under a pseudo-terminal and keeps its screen. Use as a context; nothing outlives it."""

    def __init__(
        self,
        *command: str,
        size: tuple[int, int] = (120, 40),
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        is_forked: bool = False,
        synchronized: bool = True,
    ) -> None:
        """With `is_forked`, `command` are the arguments of an `epochtop` that is forked, which saves a second.

        A `synchronized` terminal never shows a part of a frame: a test may look while the rest is on its way.
        """
        forked()  # waits until the process that forks engines has imported torch
        self._master, slave = pty.openpty()
        self._lock = threading.Lock()
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self.output = bytearray()
        """All bytes that came."""
        self._arrivals: list[tuple[float, int]] = []
        """When each part of them came (perf_counter), and where it ends."""
        self._synchronized, self._asked_at = synchronized, 0
        self._drawn = 0
        """Bytes that are on the screen: drawing takes longer than the app does, so it is left until somebody looks."""
        self._rows: list[str] | None = None
        """The screen's rows, once they were asked for; None where what is drawn has changed since."""
        self._reading = threading.Event()
        self._reading.set()
        self._stop = False
        self._tell_size(*size)
        variables = {**_environment(), **(environment or {})}
        self.process = (
            _fork(slave, command, folder, variables) if is_forked else _start(slave, command, folder, variables)
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        family = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()
        self.hang_up()

    # --- what it shows ---------------------------------------------------------------------------------

    def rows(self) -> list[str]:
        """The screen, row by row."""
        with self._lock:
            if self._rows is None or self._drawn < self._shown():
                self._draw(self._shown())
                self._rows = [row.rstrip() for row in self._screen.display]
            return list(self._rows)

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.rows())

    def colors(self) -> set[str]:
        """Every foreground color that is on the screen, blanks left out."""
        with self._lock:
            self._draw(self._shown())
            return {cell.fg for row in self._screen.buffer.values() for cell in row.values() if cell.data.strip()}

    @property
    def echoes(self) -> bool:
        """Whether the terminal echoes what is typed, as for a shell."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def is_reversed(self, text: str) -> bool:
        """Whether a text stands somewhere with its colors swapped, as on the button with the focus."""
        return any(row[column].reverse for row, column in self._cells(text))

    def has_cursor_after(self, text: str) -> bool:
        """Whether the cell after a text has a background of its own, as in an empty entry with the focus."""
        ends = [(row, column + len(text)) for row, column in self._cells(text)]
        return any(row[end].bg != row[end + 1].bg for row, end in ends)

    def _cells(self, text: str) -> list[tuple[Mapping[int, Any], int]]:
        """Where a text stands: rows of cells, and its first column in each."""
        places = [(number, row.find(text)) for number, row in enumerate(self.rows()) if text in row]
        with self._lock:
            return [(dict(self._screen.buffer[number]), column) for number, column in places]

    def wait_for(self, *wanted: Wanted, patience_s: float = HANGING_S) -> str:
        """Wait until the screen shows these texts at once, and is as predicates want it; returns the screen."""
        patience = time.monotonic() + patience_s
        while not _is(wanted, shown := self.text):
            ended = not self._reader.is_alive()
            assert not ended or _is(wanted, self.text), f"the command ended without {wanted!r}:\n{self.text}"
            assert time.monotonic() < patience, f"{wanted!r} did not come:\n{shown}"
            time.sleep(0.02)
        return shown

    def wait_without(self, unwanted: str) -> str:
        """Wait until a text has left the screen."""
        return self.wait_for(lambda shown: unwanted not in shown)

    def arrival_of(self, wanted: str) -> float | None:
        """When (perf_counter) the bytes came with which the screen first showed a text, among those not looked at yet."""
        with self._lock:
            for moment, end in self._arrivals:
                if end > self._drawn:
                    self._draw(end)
                    if wanted in "\n".join(self._screen.display):
                        return moment
        return None

    # --- what is done to it ----------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        """Type, one key after the other."""
        for key in keys:
            os.write(self._master, key.encode())

    def click(self, column: int, row: int) -> None:
        """Press and release the left button on a cell, counted from 0."""
        place = f"{column + 1};{row + 1}"
        self.press(f"\x1b[<0;{place}M", f"\x1b[<0;{place}m")

    def click_on(self, label: str) -> None:
        """Click on the last character of a text, where it stands first."""
        for number, row in enumerate(self.rows()):
            if label in row:
                self.click(row.index(label) + len(label) - 1, number)
                return
        raise AssertionError(f"{label!r} is not on the screen:\n{self.text}")

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        with self._lock:
            self._draw(self._shown())
            self._screen.resize(height, width)
            self._rows = None
            self._tell_size(width, height)

    def stall(self) -> None:
        """Read nothing more, like a line that hangs."""
        self._reading.clear()

    def go_on(self) -> None:
        """Read again."""
        self._reading.set()

    def hang_up(self) -> None:
        """Close the terminal: the kernel sends SIGHUP to what runs in it."""
        self._stop = True
        self._reading.set()
        self._reader.join()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the command to end and its last output to arrive; returns its exit status."""
        status = self.process.wait(HANGING_S)
        patience = time.monotonic() + HANGING_S
        while self._reader.is_alive() and not self._stop:
            assert time.monotonic() < patience
            time.sleep(0.01)
        return status

    def modes(self) -> dict[str, bool]:
        """The private modes of the terminal, by number, as the command left them."""
        modes: dict[str, bool] = {}
        for part in bytes(self.output).split(b"\x1b[?")[1:]:
            numbers = part[: min(part.find(end) % 99 for end in (b"h", b"l"))]
            if numbers.replace(b";", b"").isdigit():
                on = part[len(numbers) : len(numbers) + 1] == b"h"
                modes |= dict.fromkeys(numbers.decode().split(";"), on)
        return modes

    # --- inside ----------------------------------------------------------------------------------------

    def _tell_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _read(self) -> None:
        while not self._stop:
            self._reading.wait()
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            try:
                new = os.read(self._master, 1 << 16)
            except OSError:  # the last process has closed its side
                return
            with self._lock:
                self.output += new
                self._arrivals.append((time.perf_counter(), len(self.output)))
            if self._synchronized:
                self._answer()

    def _answer(self) -> None:
        """Tell the command that it may mark its frames, when it asks."""
        asked_at = self.output.find(ASKED, self._asked_at)
        if asked_at >= 0:
            self._asked_at = asked_at + len(ASKED)
            with suppress(OSError):  # the command has ended
                os.write(self._master, ANSWER)
        else:
            self._asked_at = max(self._asked_at, len(self.output) - len(ASKED) + 1)

    def _shown(self) -> int:
        """Where the last complete frame ends; a command that has ended completes none."""
        begins = self.output.rfind(FRAME_BEGINS, max(0, self._drawn - len(FRAME_BEGINS)))
        is_complete = begins < 0 or self.output.find(FRAME_ENDS, begins) >= 0
        return len(self.output) if is_complete or not self._reader.is_alive() else begins

    def _draw(self, end: int) -> None:
        end = max(end, self._drawn)
        self._stream.feed(bytes(self.output[self._drawn : end]))
        self._drawn = end
        self._rows = None


def _start(
    terminal: int, command: Sequence[str], folder: Path | None, environment: Mapping[str, str]
) -> subprocess.Popen[Any]:
    words = [sys.executable, "-S", "-c", TAKE_THE_TERMINAL, *command]
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    return subprocess.Popen(words, cwd=folder, start_new_session=True, env=environment, **streams)


def _fork(
    terminal: int, arguments: Sequence[str], folder: Path | None, environment: Mapping[str, str]
) -> subprocess.Popen[Any]:
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    return Command(*arguments, environment=environment, terminal=True, folder=folder, **streams)


def _environment() -> dict[str, str]:
    """That of the tests, which pretends no size: what the terminal itself says must count."""
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return {**kept, "TERM": "xterm-256color"}


def _is(wanted: Sequence[Wanted], shown: str) -> bool:
    return all(each in shown if isinstance(each, str) else each(shown) for each in wanted)
