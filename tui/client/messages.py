"""What the starter thread reports to the app. One message per fact; the app's handlers change state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from textual.message import Message

from epochtop.engine.protocol.requests import Plan, Ready, Refused
from epochtop.engine.protocol.spec import RunSpec


@dataclass
class StandbyReady(Message):
    """The engine has imported torch."""

    ready: Ready


@dataclass
class StandbyDied(Message):
    """The engine ended before it had a run; `starting` if a run had been requested."""

    reason: str
    starting: bool


@dataclass
class EngineProgress(Message):
    """The phase of a slow request."""

    message: str


@dataclass
class RunPlanned(Message):
    """The plan of a run of `spec`."""

    spec: RunSpec
    plan: Plan


@dataclass
class RunRefused(Message):
    """The run is not possible here; `starting` if it had been requested, not just described."""

    refused: Refused
    starting: bool


@dataclass
class RunStarted(Message):
    """A run directory exists; training starts or resumes."""

    run: Path


@dataclass
class ExperimentStarted(Message):
    """The experiment's run directory exists; it is measuring."""

    run: Path


@dataclass
class ExperimentRefused(Message):
    """The experiment did not start; `field` is the wrong field, if there is one."""

    reason: str
    field: str = ""
