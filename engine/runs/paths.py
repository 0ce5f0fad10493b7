"""Where runs are stored, what the files of a run are called, and who writes there.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

RECORD, EVENTS, COMMANDS, LOCK, OUTPUT = "run.json", "events.jsonl", "commands.jsonl", "lock", "output.log"


CHECKPOINTS = "checkpoints"


PREPARATION = "preparation.json"


def home() -> Path:
    """The folder of all runs: $EPOCHTOP_HOME, else `runs` in the user's data folder."""
    chosen = os.environ.get("EPOCHTOP_HOME")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("epochtop", appauthor=False)) / "runs"


def cache_folder() -> Path:
    """The folder of downloaded datasets and compiled programs: $EPOCHTOP_CACHE, else the user's cache folder."""
    chosen = os.environ.get("EPOCHTOP_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("epochtop", appauthor=False))


LAB = "lab"


def lab_home(folder: Path) -> Path:
    """The folder of all experiments beside the runs in `folder`: they are run directories too, but nothing is trained."""
    return folder / LAB


def whoami() -> str:
    """The sender of a command, as `user@host:pid`."""
    return f"{user_name()}@{socket.gethostname()}:{os.getpid()}"


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user id in this container
        return str(os.getuid())
