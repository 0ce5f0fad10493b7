"""Reads the table of runs in a thread, again and again while the page is open. Never imports Textual."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

from epochtop.engine.runs.table.details import RunDetails
from epochtop.engine.runs.table.table import RunTable

LIST_S = 1.0
"""Least seconds between two readings."""
SHARE = 20
"""Readings take at most one part in SHARE of the time."""
PIECE_S = 0.5
"""Seconds of reading after which what is known is shown."""


class TableSource:
    """The runs of a home folder. It keeps what was read, so that the page opens with it the second time."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._table: RunTable | None = None
        self._reading = threading.Lock()
        self._is_read = False
        self.runs: list[RunDetails] = []
        """The runs of the last reading."""

    @property
    def problem(self) -> str:
        """Why labels of opened logs are missing; empty if they are not."""
        return self._table.problem if self._table is not None else ""

    def read(self, seconds: float = float("inf")) -> list[RunDetails]:
        """All runs now; reads logs for at most about `seconds`."""
        with self._reading:
            self._table = self._table or RunTable(self._home)
            self.runs = self._table.list(seconds)
            if not self._is_read and all(run.complete for run in self.runs):
                self._is_read = True
                gc.freeze()  # a collection of 2,000 runs takes 40 ms between a key and its effect
            return self.runs

    def follow(self, report: Callable[[list[RunDetails]], None], stop: threading.Event) -> None:
        """Report all runs whenever they have been read, until `stop` is set. For a thread."""
        while not stop.is_set():
            start = time.monotonic()
            runs = self.read(PIECE_S)
            if stop.is_set():
                return
            report(runs)
            if all(run.complete for run in runs):
                took = time.monotonic() - start
                stop.wait(max(LIST_S, SHARE * took))
