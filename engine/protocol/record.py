"""The record of a run (run.json): what was asked for, and who started it, where, when and with which versions. And the
record of its custom task (task.json).

Imports msgspec and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import msgspec

from epochtop.engine.protocol.events.event import UnixTime
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec

PROTOCOL_VERSION = 1
"""Version of the run format, written into run.json."""


class GitState(msgspec.Struct, frozen=True, kw_only=True):
    """State of the git repository that a script belongs to."""

    commit: str
    """Full hash of the commit that is checked out."""
    branch: str = ""
    """Name of the branch; empty if none is checked out."""
    dirty: bool | None = None
    """Whether tracked files differ from the commit; the difference is stored in `git.diff`, up to 1 MiB. None if unknown,
    for example because the script ended before git told."""
    remote: str = ""
    """Address of the remote `origin`, without credentials; empty if there is none."""


class ScriptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a user's script records about itself."""

    name: str = ""
    """Display name of the run; empty if it has none."""
    project: str = ""
    group: str = ""
    """Name that runs share which belong together, such as the seeds of one setting."""
    tags: tuple[str, ...] = ()
    notes: str = ""
    resume_id: str = ""
    """Id that the script has chosen, by which it can continue the run; empty if it has none."""
    config: dict[str, Any] = {}
    """Configuration: JSON values by name; nested names are joined with `/`."""
    command: tuple[str, ...] = ()
    """Command line."""
    working_folder: str = ""
    """Current folder when the run was created."""
    python: str = ""
    """Path of the interpreter."""
    environment: dict[str, str] = {}
    """Variables that describe the job, such as `SLURM_JOB_ID` and `CUDA_VISIBLE_DEVICES`."""
    git: GitState | None = None
    """State of the git repository; None outside a repository."""

    @property
    def source(self) -> str:
        """The project, or else the name of the script's file; empty if both are unknown."""
        script = next((part for part in self.command if part.endswith(".py")), "".join(self.command[:1]))
        return self.project or PurePath(script).name


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of run.json: the request, and who started it, where, when and with which versions."""

    spec: RunSpec
    """Settings of the run; for an experiment, of the job it measures; without meaning for a script."""
    experiment: ExperimentRequest | None = None
    """Request of an experiment; None for a run."""
    script: ScriptRecord | None = None
    """What a user's script records about itself; None if the engine trains."""
    created: UnixTime
    """Unix time in seconds."""
    host: str
    """Host name of the machine."""
    user: str
    """Login name."""
    pid: int
    """Process id of the engine."""
    versions: dict[str, str]
    """Version by name of the software, such as `torch`."""
    tags: tuple[str, ...] = ()
    """Tags that the user gave a run of the engine; those of a script are in `script`."""
    notes: str = ""
    """Notes of the user on a run of the engine; those on a script are in `script`."""
    protocol: int = PROTOCOL_VERSION

    @property
    def name(self) -> str:
        """Display name; empty if only the id names the run."""
        return self.script.name if self.script is not None else self.spec.name


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A Python file of a custom task."""

    module: str
    """Name by which the task imports it; empty for the task's own file."""
    path: str
    """Absolute path."""
    sha256: str
    """SHA-256 of the file, in hexadecimal."""
    text: str | None
    """The source; None if the files are larger than 1 MiB together."""


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of task.json: the code that a run was trained with."""

    working_folder: str
    """Current folder when the task was loaded."""
    sources: tuple[SourceFile, ...]
    """The task's file, then the modules that it imported from its folder."""

    @property
    def stored(self) -> bool:
        """Whether the sources can replace the files."""
        return bool(self.sources) and all(source.text is not None for source in self.sources)


decode_record: Callable[[bytes], RunRecord] = msgspec.json.Decoder(RunRecord).decode
decode_task_record: Callable[[bytes], TaskRecord] = msgspec.json.Decoder(TaskRecord).decode
