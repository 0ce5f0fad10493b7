"""Where runs are stored, what the files of a run are called, and the name of the user.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from epochtop.configuration import configured_home
from epochtop.recording.directory import COMMANDS as COMMANDS
from epochtop.recording.directory import DIFF as DIFF
from epochtop.recording.directory import EVENTS as EVENTS
from epochtop.recording.directory import HEARTBEAT as HEARTBEAT
from epochtop.recording.directory import LOCK as LOCK
from epochtop.recording.directory import OPENED as OPENED
from epochtop.recording.directory import OUTPUT as OUTPUT
from epochtop.recording.directory import RECORD as RECORD
from epochtop.recording.directory import RESERVE as RESERVE
from epochtop.recording.directory import user_name as user_name

CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""
PREPARATION = "preparation.json"
"""File that tells how rows become the model's input."""
ORIGIN = "origin.json"
"""File that tells from which machine a run was copied."""
TASK = "task.json"
"""File with the sources of a custom task."""


def home() -> Path:
    """The home folder of runs: $EPOCHTOP_HOME, else that of config.toml, else `runs` in the user's data folder."""
    custom = os.environ.get("EPOCHTOP_HOME") or configured_home()
    if custom:
        return Path(custom).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("epochtop", appauthor=False)) / "runs"


def home_problem(folder: Path) -> str:
    """Create the home folder, private to the user. Returns why runs cannot be written there; empty if they can."""
    try:
        if folder.name == LAB:  # mkdir gives parents the default mode, not this one
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / f".probe-{os.getpid()}-{os.urandom(4).hex()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"cannot write runs to {folder}: {error.strerror}; set EPOCHTOP_HOME to a folder you can write to"
    return ""


def cache_folder() -> Path:
    """The folder of downloaded datasets and compiled programs: $EPOCHTOP_CACHE, else the user's cache folder."""
    chosen = os.environ.get("EPOCHTOP_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return user_cache_folder()


def user_cache_folder() -> Path:
    """The folder in the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("epochtop", appauthor=False))


LAB = "lab"
"""Folder of experiments in the home folder."""


def lab_home(folder: Path) -> Path:
    """The folder of experiments in the home folder `folder`; an experiment is stored as a run directory too."""
    return folder / LAB


def whoami() -> str:
    """This process as the sender of a command: `user@host:pid`."""
    return f"{user_name()}@{socket.gethostname()}:{os.getpid()}"
