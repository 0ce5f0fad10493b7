"""Starts, resumes and imports runs with the epochtop that is installed on this machine, for a viewer on another one.

Its command prints the id when the run exists, which takes seconds, so threads wait for it. Imports the standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from queue import Empty, Queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

COMMANDS = ("train", "resume", "run", "open")
"""Commands that a viewer may ask for."""
PLACES = ("~/.local/bin/epochtop", "~/.local/share/pipx/venvs/epochtop/bin/epochtop", "~/.venv/bin/epochtop")
"""Where the command may be without being on the PATH, which ssh leaves short."""
LONGEST_ERROR = 500


def find_program() -> str:
    """The command of the epochtop that is installed here; empty if there is none."""
    beside_python = os.path.join(sys.prefix, "bin", "epochtop")
    places = [beside_python, *map(os.path.expanduser, PLACES)]
    return shutil.which("epochtop") or next((place for place in places if os.access(place, os.X_OK)), "")


class Starts:
    """Runs that are being started in `home` by `program`."""

    def __init__(self, program: str, home: str) -> None:
        self._program, self._home = program, home
        self._answers: Queue[dict[str, Any]] = Queue()

    def begin(self, number: object, arguments: Sequence[object]) -> None:
        """Start or resume a run; :meth:`answers` has the result later."""
        words = [str(word) for word in arguments]
        if not self._program or words[:1] not in ([command] for command in COMMANDS):
            self._answers.put(_answer(number, error="it cannot start runs"))
            return
        threading.Thread(target=self._wait, args=(number, words), name="start", daemon=True).start()

    def answers(self) -> Iterator[dict[str, Any]]:
        """What has come of requests since the last call."""
        while True:
            try:
                yield self._answers.get_nowait()
            except Empty:
                return

    def _wait(self, number: object, words: list[str]) -> None:
        try:
            process = subprocess.run(  # noqa: S603 - epochtop of the user's account, which asks for it over ssh
                [self._program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**os.environ, "EPOCHTOP_HOME": self._home},
                start_new_session=True,
                check=False,
            )
        except OSError as error:
            self._answers.put(_answer(number, error=f"{self._program} does not start: {error.strerror}"))
            return
        words_printed = process.stdout.decode("utf-8", "replace").split()
        if process.returncode == 0 and words_printed:
            self._answers.put(_answer(number, run=words_printed[0]))
            return
        errors = process.stderr.decode("utf-8", "replace").strip().splitlines()
        last = errors[-1][:LONGEST_ERROR] if errors else f"exit status {process.returncode}"
        self._answers.put(_answer(number, error=last[len("epochtop: ") :] if last.startswith("epochtop: ") else last))


def _answer(number: object, run: str = "", error: str = "") -> dict[str, Any]:
    return {"type": "sent", "number": number, "run": run, "error": error}
