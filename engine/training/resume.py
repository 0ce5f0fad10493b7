"""Continuing a run that ended before its last step: its spec, where it continues, and what is recorded already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from torch import Tensor

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.execution.choice import Executors
from epochtop.engine.job import state
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values
from epochtop.engine.protocol.datasets import takes_problem
from epochtop.engine.protocol.events import Changed
from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import check_can_resume
from epochtop.engine.runs.ownership import check_code
from epochtop.engine.runs.paths import PREPARATION
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.regular import read_regular
from epochtop.engine.tasks.sources import stored_record, without_text
from epochtop.engine.training import checkpoint, history


def _no_losses() -> npt.NDArray[np.float32]:
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class Origin:
    """Where a loop begins. The defaults are those of a new run."""

    step: int = 0
    """Steps taken already."""
    seconds: float = 0.0
    """Training time of these steps."""
    started: bool = False
    """Whether the log contains Started already."""
    learning_rate: float = 0.0
    """The last requested learning rate, before the schedule; 0 for that of the spec."""
    recorded: npt.NDArray[np.float32] = field(default_factory=_no_losses)
    """Losses in the log, float32 (steps,). Steps from `step` on are taken again but not recorded again."""
    recorded_seconds: float = 0.0
    """Training time of the recorded losses."""
    evaluated: int = -1
    """Step of the last evaluation in the log."""
    changes: Sequence[Changed] = ()
    """Live changes of the learning rate at steps that are taken again."""
    executors: Executors | None = None
    """The executors so far; None for a new run."""
    values: Values | None = None
    """Plain values of the checkpoint; None without one."""
    best: Values | None = None
    """Plain values of the best weights' checkpoint; None without one."""
    best_step: int = 0
    """Step of the best weights."""
    regrouped: bool = False
    """Whether batch sizes have changed, so that recomputed losses equal the recorded ones only up to rounding."""
    problems: Sequence[str] = ()
    """What is wrong with checkpoints that cannot be used, and what the run does instead, one sentence each."""


@dataclass(frozen=True)
class RecordedRun:
    """The record of an interrupted run: its spec, its log, and the checkpoint it continues from, if there is one."""

    spec: RunSpec
    log: history.History
    info: checkpoint.CheckpointInfo | None
    tensors: dict[str, Tensor]
    best: checkpoint.CheckpointInfo | None
    problems: Sequence[str] = ()
    """What is wrong with checkpoints that cannot be used, and what the run does instead, one sentence each."""
    task_record: TaskRecord | None = None
    """The code of the run's task; None for a dataset, and for a run of an earlier version."""

    @property
    def step(self) -> int:
        """Steps taken already, at the checkpoint."""
        return self.info.step if self.info else 0

    def restore(self, job: Job) -> Origin:
        """Restore `job` from the checkpoint; returns where the loop begins. Raises Invalid."""
        changes = [change for change in self.log.changes if change.field == "learning_rate"]
        common = {
            "started": self.log.started is not None,
            "recorded": self.log.losses,
            "recorded_seconds": self.log.seconds,
            "evaluated": self.log.evaluated,
            "executors": Executors(self.log.started.executor, self.log.switched) if self.log.started else None,
            "changes": [change for change in changes if change.step >= self.step],
            "problems": self.problems,
            "regrouped": self.log.smaller is not None or job.spec.batch_size != self.spec.batch_size,
        }
        if self.info is None:
            return Origin(**common)  # type: ignore[arg-type]
        values = self.info.values
        state.restore(job, self.tensors, values, self.step)
        best = self.best
        return Origin(
            step=self.step,
            seconds=float(values.get("seconds") or 0.0),
            learning_rate=float(values["learning_rate"] or 0.0),
            values=values,
            best=best.values if best else None,
            best_step=best.step if best else 0,
            **common,  # type: ignore[arg-type]
        )


def resumable_run(run: Path, trusted_owner: str = "", edited_task: bool = False) -> RecordedRun:
    """The record of an interrupted run. Raises Invalid if it is complete or cannot continue.

    `trusted_owner` is another owner of the run whose task may be executed. `edited_task` executes the task's files as they
    are now.
    """
    check_can_resume(run)
    check_code(run, read_record(run).spec.task, trusted_owner)
    recorded = recorded_run(run)
    if edited_task and recorded.task_record is not None:
        return replace(recorded, task_record=without_text(recorded.task_record))
    return recorded


def recorded_run(run: Path) -> RecordedRun:
    """The record of a run, without checks. Batches that ran out of memory are not tried again."""
    record, log = read_record(run), history.read(run)
    newest = checkpoint.newest(run, (checkpoint.LAST, checkpoint.PREVIOUS), log.steps, checkpoint.RESUME_VALUES)
    best, best_problems = _best(run)
    spec = record.spec
    if log.started is not None and not spec.threads and log.started.device == "cpu":
        spec = msgspec.structs.replace(spec, threads=log.started.threads)  # sums depend on the number of threads
    if log.smaller is not None:
        spec = msgspec.structs.replace(spec, batch_size=log.smaller[0], accumulate=log.smaller[1])
    spec = _with_problem(run, spec)
    problems = (*_explained(newest), *best_problems)
    task_record = stored_record(run) if spec.task else None
    return RecordedRun(spec, log, newest.info, newest.tensors, best, problems, task_record)


def _with_problem(run: Path, spec: RunSpec) -> RunSpec:
    """The spec with the problem that the run solves, so that `auto` does not decide again."""
    if spec.task or spec.problem != "auto" or not takes_problem(spec.dataset):
        return spec
    try:
        preparation = msgspec.json.decode(read_regular(run / PREPARATION), type=Preparation)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return spec
    return msgspec.structs.replace(spec, problem=preparation.problem)


def _explained(newest: checkpoint.Newest) -> list[str]:
    """What is wrong with the newest checkpoints, and where the run continues instead."""
    if not newest.problems:
        return []
    if newest.info is None:
        instead = "no other checkpoint can be used, so the run takes all steps again"
    else:
        instead = f"the run continues from checkpoint {newest.kind!r} of step {newest.info.step:,}"
    return [*newest.problems[:-1], f"{newest.problems[-1]}; {instead}"]


def _best(run: Path) -> tuple[checkpoint.CheckpointInfo | None, list[str]]:
    """The checkpoint of the best weights if it is intact, and what is wrong with it otherwise."""
    if not checkpoint.exists(run, "best"):
        return None, []
    try:
        return checkpoint.intact_info(run, "best"), []
    except Invalid as error:
        return None, [f"{error.message}; the next evaluation replaces it"]
