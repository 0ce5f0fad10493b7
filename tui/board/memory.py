"""What the board remembers in the home folder: grid or one chart, filter, page, axes.

A thread writes, so that a slow file system cannot freeze the screen. Never imports a widget.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal

import msgspec

from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.regular import open_file
from epochtop.tui.chart.curves import BandKind
from epochtop.tui.chart.loss_chart import SMOOTHING, UNITS

FILE = "board.json"
MOST_BYTES = 65_536
"""Longest file that is read."""
Unit = Literal["step", "epoch", "seconds", "clock"]


class BoardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The choices of the user, for all runs of a home folder."""

    view: Literal["one", "grid"] = "one"
    filter: str = ""
    group: str | None = None
    """Group of the charts; None for all."""
    page: int = 0
    log_y: bool = False
    log_x: bool = False
    hide_outliers: bool = False
    smoothing: float = 0.0
    band: BandKind = "deviation"
    unit: Unit = "step"

    def __post_init__(self) -> None:
        if self.smoothing not in SMOOTHING or self.unit not in UNITS or self.page < 0:
            raise ValueError("smoothing, unit or page is out of range")


class SettingsError(ValueError):
    """Why a file of settings was not read."""


def load(path: Path) -> BoardSettings:
    """The settings in a file, or the defaults if there is none. Raises SettingsError if it cannot be read."""
    try:
        with open_file(path) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SettingsError(f"{path} is too long; the board begins with its defaults")
        return msgspec.json.decode(content, type=BoardSettings)
    except FileNotFoundError:
        return BoardSettings()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; the board begins with its defaults") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is damaged ({error}); the board begins with its defaults") from error


class Memory:
    """Writes settings one after the other; of several that wait, only the newest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error = ""
        """Why the last write failed; empty if it did not."""
        self._lock = threading.Lock()
        self._next: BoardSettings | None = None
        self._thread: threading.Thread | None = None

    def save(self, settings: BoardSettings) -> None:
        """Write the settings soon."""
        with self._lock:
            self._next = settings
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="board settings", daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for what is being written, at most this long."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._lock:
                settings, self._next = self._next, None
                if settings is None:
                    self._thread = None
                    return
            try:
                write_atomically(self.path, msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
                self.error = ""
            except OSError as error:
                self.error = f"{self.path}: {error.strerror}"
