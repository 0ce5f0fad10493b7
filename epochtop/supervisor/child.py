"""The user's command as a process group of its own, with its output in a pseudo-terminal or in pipes.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import selectors
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence

READ_BYTES = 1 << 16


class Child:
    """A running command. Its output arrives from `read`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] | None, keep_input: bool
    ) -> None:
        """Start `command`. `size` is the columns and rows of its terminal; None for pipes. Raises OSError."""
        self._selector = selectors.DefaultSelector()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell; Stop needs the signal
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        stdin = None if keep_input else subprocess.DEVNULL
        if size is not None:
            master, slave = _open_terminal(size)
            outputs = (slave, slave)
            reading = {master: 1}
        else:
            (out, out_end), (err, err_end) = os.pipe(), os.pipe()
            outputs = (out_end, err_end)
            reading = {out: 1, err: 2}
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - the command of `epochtop run`
                command,
                stdin=stdin,
                env=environment,
                start_new_session=True,
                close_fds=True,
                stdout=outputs[0],
                stderr=outputs[1],
            )
        finally:
            for end in {*outputs}:
                os.close(end)
        for descriptor, number in reading.items():
            self._selector.register(descriptor, selectors.EVENT_READ, number)

    def read(self, wait_s: float) -> Iterator[tuple[int, bytes]]:
        """What the command printed within `wait_s` seconds: 1 for standard output or 2 for standard error, and bytes."""
        if not self._selector.get_map():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
            return
        for key, _ in self._selector.select(wait_s):
            data = _read(key.fd)
            if data:
                yield key.data, data
            else:
                self._selector.unregister(key.fd)
                os.close(key.fd)

    def send(self, number: int) -> None:
        """Send a signal to every process of the command."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    @property
    def exit_status(self) -> int | None:
        """Exit status of the command, negative for a signal; None while it runs."""
        return self.process.poll()

    @property
    def is_over(self) -> bool:
        """Whether the command and its background processes have ended."""
        if self.exit_status is None:
            return False
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # macOS reports this for a group of zombies
            return True
        return False


def _open_terminal(size: tuple[int, int]) -> tuple[int, int]:
    """The two ends of a pseudo-terminal that passes bytes on unchanged."""
    master, slave = pty.openpty()
    columns, rows = size
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    return master, slave


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, READ_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:  # the end of a pseudo-terminal on Linux
            raise
        return b""


def signal_name(number: int) -> str:
    """Name of a signal, such as SIGTERM."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
