"""The run directory of a command: its record, its name, and whether Python will start the hooks. Standard library only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from epochtop.recording import directory, facts
from epochtop.recording.json_text import encode

LAUNCHERS = (
    "torchrun",
    "accelerate",
    "python",
    "bash",
    "sh",
    "zsh",
    "uv",
    "poetry",
    "srun",
    "mpirun",
    "env",
    "nice",
    "time",
)
"""Programs that start another one, which names the run."""
PROTOCOL = 1
"""Version of the run format."""


def create_run(command: Sequence[str], name: str) -> tuple[Path, IO[bytes]]:
    """Create and lock the run directory of a command in the home folder. Raises OSError."""
    home = directory.home()
    directory.make_folder(home)
    folder = facts.working_folder()
    record: dict[str, Any] = {
        "spec": {},
        "script": {
            "name": name,
            "command": list(command),
            "working_folder": folder,
            "python": "",
            "environment": facts.environment(),
            "git": _git(folder),
        },
        "created": time.time(),
        "host": directory.host_name(),
        "user": directory.user_name(),
        "pid": os.getpid(),
        "versions": {"python": sys.version.partition(" ")[0]},
        "protocol": PROTOCOL,
    }
    path, lock = directory.create(home, directory.slug(name or stem(command)), encode(record).encode())
    return Path(path), lock


def _git(folder: str) -> dict[str, Any] | None:
    state = facts.git_state(folder)
    return {**state, "dirty": bool(state["dirty"])} if state is not None else None


def stem(command: Sequence[str]) -> str:
    """What a command is called: the first script or module that it names, else its program."""
    program = Path(command[0]).stem
    if not program.startswith(LAUNCHERS):
        return program
    words = list(command[1:])
    for place, word in enumerate(words):
        if word.endswith((".py", ".sh")):
            return Path(word).stem
        if word == "-m" and place + 1 < len(words) and not words[place + 1].startswith("torch."):
            return words[place + 1].rpartition(".")[2]
    return program


def hookless_reason(command: Sequence[str]) -> str:
    """Why Python will not start the hooks, as far as the command shows; empty if it will."""
    if not Path(command[0]).name.startswith(("python", "pypy")):
        return ""
    for word in command[1:]:
        if not word.startswith("-") or word.startswith("--"):
            return ""
        for letter in word[1:]:
            if letter in "ISE":
                return f"python was started with -{letter}"
            if letter in "cmWX":
                break
        if word[1:2] in ("c", "m"):
            return ""
    return ""
