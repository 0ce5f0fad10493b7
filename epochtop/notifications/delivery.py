"""Hands a message to a detached child process, which sends it, and reads its report. Imports built-in modules only.

`posix_spawn` starts the child in about a millisecond, however much memory this process has, and runs nothing that was
registered for forks. The message goes through a pipe, and the child reads the configuration itself: no secret is in an
argument or in a run directory.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
"""What the child process runs."""
MESSAGE_BYTES = 1 << 15
"""Most bytes of a message, which must fit into a pipe that is not read yet."""


class Delivery:
    """One child process."""

    def __init__(self, message: bytes, configuration: str) -> None:
        """Start it. `configuration` is the path of config.toml. Raises OSError if a process cannot be started."""
        command = [sys.executable, "-I", "-S", CHILD]
        if not os.path.basename(command[0] or "").startswith(("python", "pypy")):
            raise OSError("this process has no Python interpreter to start")
        inbound, outbound = _pipe(), _pipe()
        try:
            os.write(inbound[1], message[:MESSAGE_BYTES])
            actions = [
                (os.POSIX_SPAWN_DUP2, inbound[0], 0),
                (os.POSIX_SPAWN_DUP2, outbound[1], 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            self._pid = _spawn(command, actions, configuration)
        except BaseException:
            os.close(outbound[0])
            raise
        finally:
            for end in (*inbound, outbound[1]):
                os.close(end)
        os.set_blocking(outbound[0], False)
        self._reports, self._text = outbound[0], b""
        self.is_done = False
        """Whether the child has ended."""

    def poll(self) -> None:
        """Look whether the child has ended. Never waits."""
        if self.is_done:
            return
        try:
            self._text += os.read(self._reports, MESSAGE_BYTES)
        except OSError:  # nothing yet
            pass
        try:
            self.is_done = os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # the script has waited for it
            self.is_done = True
        if self.is_done:
            try:
                self._text += os.read(self._reports, MESSAGE_BYTES)
            except OSError:
                pass
            os.close(self._reports)

    @property
    def failures(self) -> list[str]:
        """What the child could not do, one sentence per route."""
        return self._text.decode("utf-8", "replace").splitlines()

    def wait(self, seconds: float) -> None:
        """Wait at most this long for the end of the child."""
        give_up_at = time.monotonic() + seconds
        self.poll()
        while not self.is_done and time.monotonic() < give_up_at:
            time.sleep(0.01)
            self.poll()


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the standard streams, even if those are closed. Children do not inherit it."""
    ends = os.pipe()
    if min(ends) > 2:
        return ends
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _spawn(command: list[str], actions: Sequence[tuple[object, ...]], configuration: str) -> int:
    """Start a process in a session of its own, which no signal to this one reaches."""
    environment = dict(os.environ)
    if "EPOCHTOP_CONFIG" in environment:  # a relative path, and the script may have changed its folder
        environment["EPOCHTOP_CONFIG"] = configuration
    try:
        return os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True, setsigmask=())
    except NotImplementedError:  # an old C library
        return os.posix_spawn(command[0], command, environment, file_actions=actions, setpgroup=0, setsigmask=())
