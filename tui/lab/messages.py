"""What the Lab page asks of the app. One message per request; the app's handlers start and stop things."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.lab.stage import LabSession


@dataclass
class MeasureRequested(Message):
    """Run an experiment."""

    request: ExperimentRequest
    spec: RunSpec


@dataclass
class StopRequested(Message):
    """Stop the running experiment."""


@dataclass
class TrialRequested(Message):
    """Train with the setting of this result's verdict."""

    session: LabSession


@dataclass
class RunPanelRequested(Message):
    """Measure the job of the Run panel."""


@dataclass
class LabLeft(Message):
    """The user left the Lab page; `page` is the region to show, empty for the chart."""

    page: str
