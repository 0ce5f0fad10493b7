"""Where runs are stored, what the files of a run are called, and the name of the user.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

RECORD, EVENTS, COMMANDS, LOCK, OUTPUT = "run.json", "events.jsonl", "commands.jsonl", "lock", "output.log"
"""Files of a run: its record, its events, commands to it, the engine's lock, and what the engine printed."""
HEARTBEAT = "heartbeat"
"""File whose modification time the process of a run refreshes every few seconds, while it is alive."""
RESERVE = ".reserve"
"""File that holds space for the last event while the engine is alive."""
CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""
PREPARATION = "preparation.json"
"""File that tells how rows become the model's input."""
TASK = "task.json"
"""File with the sources of a custom task."""


def home() -> Path:
    """The home folder of runs: $EPOCHTOP_HOME, else `runs` in the user's data folder."""
    custom = os.environ.get("EPOCHTOP_HOME")
    if custom:
        return Path(custom).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("epochtop", appauthor=False)) / "runs"


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


def user_name() -> str:
    """Login name of the user, or the user id if it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user id in this container
        return str(os.getuid())
