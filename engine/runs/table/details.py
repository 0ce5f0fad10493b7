"""What the table of runs knows about one run. Never imports torch, numpy or Textual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.protocol.record import GitState, RunRecord
from epochtop.engine.runs.index import RunSummary
from epochtop.engine.runs.table.labels import Labels, labels_of
from epochtop.engine.runs.values.figures import SeriesFigures
from epochtop.engine.runs.values.history import config_of


class RunDetails(msgspec.Struct, kw_only=True):
    """One run of the table."""

    path: str
    """Absolute path of the run directory or of the log."""
    kind: str
    """`epochtop` for a run directory, else the format of the log."""
    summary: RunSummary
    config: dict[str, Any] = {}
    """Configuration of a script or of a log; settings of a run that the engine trains, without its name."""
    series: dict[str, SeriesFigures] = {}
    """Figures by series."""
    labels: Labels = Labels()
    group: str = ""
    """Name that runs share which belong together."""
    project: str = ""
    user: str = ""
    host: str = ""
    command: tuple[str, ...] = ()
    """Command line of a script."""
    git: GitState | None = None
    versions: dict[str, str] = {}
    """Version by name of the software."""
    complete: bool = False
    """Whether `series` has been read; false if there was no time yet, or the run cannot be read."""

    @property
    def id(self) -> str:
        """Id of the run; the absolute path if it is not in the home folder."""
        return self.summary.id

    @property
    def name(self) -> str:
        """Display name; the id if it has none."""
        return self.summary.name or self.summary.id


def details_of(path: Path, kind: str, summary: RunSummary, record: RunRecord | None) -> RunDetails:
    """A run without its figures. `record` is None if it cannot be read."""
    details = RunDetails(path=str(path), kind=kind, summary=summary)
    if record is None:
        return details
    details.config = config_of(record)
    details.labels = labels_of(record)
    details.user, details.host, details.versions = record.user, record.host, record.versions
    if record.script is None:
        details.config.pop("name", None)
    else:
        script = record.script
        details.group, details.project = script.group, script.project
        details.command, details.git = script.command, script.git
    return details
