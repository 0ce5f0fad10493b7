"""The source that is sent to the other machine: the agent and the modules that it shares with this side.

Never imports what it sends; reads the texts only.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from typing import Any

MODULES = (
    "epochtop.configuration",
    "epochtop.configuration.keys",
    "epochtop.configuration.load",
    "epochtop.configuration.regular",
    "epochtop.configuration.toml",
    "epochtop.recording.forks",
    "epochtop.recording.directory",
    "epochtop.engine.runs.regular",
    "epochtop.engine.runs.paths",
    "epochtop.engine.runs.heartbeat",
    "epochtop.engine.hardware.cgroups",
    "epochtop.engine.hardware.limits",
    "epochtop.engine.hardware.cpu.load",
    "epochtop.remote.frames",
    "epochtop.remote.listing",
    "epochtop.remote.following",
    "epochtop.remote.copying",
    "epochtop.remote.changing",
    "epochtop.remote.gpus",
    "epochtop.remote.machine",
    "epochtop.formats.decoding.growing",
    "epochtop.formats.decoding.sqlite",
    "epochtop.remote.databases",
    "epochtop.remote.opened",
    "epochtop.remote.starting",
    "epochtop.remote.agent",
)
"""Modules that are sent. They import the standard library and each other only, and work with Python 3.9."""
LOADER = "epochtop.remote.loader"


def source(options: dict[str, Any]) -> bytes:
    """What the bootstrap expects: a line with the length of a program, and the program, which serves with these options."""
    message = json.dumps({"modules": _texts(), "options": options})
    program = f"{_text(LOADER)}\nstart({json.dumps(message)})\n".encode()
    return b"%d\n" % len(program) + program


@cache
def _texts() -> dict[str, str]:
    return {name: _text(name) for name in MODULES}


def _text(name: str) -> str:
    spec = importlib.util.find_spec(name)
    text = getattr(spec.loader, "get_source")(name) if spec is not None else None  # noqa: B009 - not every loader has it
    assert isinstance(text, str), f"the source of {name} is not installed"
    return text
