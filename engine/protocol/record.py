"""The record of a run (run.json): what was asked for, and who started it, where, when and with which versions.

Imports msgspec and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec

PROTOCOL_VERSION = 1
"""Version of the run format, written into run.json."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of run.json: the request, and who started it, where, when and with which versions."""

    spec: RunSpec
    """Settings of the run; for an experiment, of the job it measures."""
    experiment: ExperimentRequest | None = None
    """Request of an experiment; None for a training run."""
    created: float
    """Unix time in seconds."""
    host: str
    """Host name of the machine."""
    user: str
    """Login name."""
    pid: int
    """Process id of the engine."""
    versions: dict[str, str]
    """Version by name of the software, such as `torch`."""
    protocol: int = PROTOCOL_VERSION


decode_record: Callable[[bytes], RunRecord] = msgspec.json.Decoder(RunRecord).decode
