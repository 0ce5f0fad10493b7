"""Going on with a run that ended before its last step: what it is asked, from where, and what is recorded already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from torch import Tensor

from epochtop.engine.execution.choice import Executors
from epochtop.engine.job import state
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values
from epochtop.engine.protocol.events import Changed
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import check_can_resume
from epochtop.engine.runs.reader import read_record
from epochtop.engine.training import checkpoint, history


def _nothing() -> npt.NDArray[np.float32]:
    return np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class Origin:
    """Where a loop begins. The defaults are the beginning of a new run."""

    step: int = 0
    seconds: float = 0.0
    """Training time until then."""
    started: bool = False
    """Whether the log has its first event already."""
    learning_rate: float = 0.0
    """The one that was asked for last, before the schedule; 0 for the spec's."""
    recorded: npt.NDArray[np.float32] = field(default_factory=_nothing)
    """Losses in the log, float32 (steps,): those from `step` on are taken again and not recorded twice."""
    recorded_seconds: float = 0.0
    evaluated: int = -1
    """Step of the last evaluation in the log."""
    changes: Sequence[Changed] = ()
    """Live changes of the learning rate at steps that are taken again."""
    executors: Executors | None = None
    """How steps were executed before; None for a new run."""
    values: Values | None = None
    """Plain values of the checkpoint; None at the very beginning."""
    best: Values | None = None
    best_step: int = 0
    regrouped: bool = False
    """Whether batches are others than those that the recorded losses come from: the same up to rounding."""


@dataclass(frozen=True)
class Remains:
    """What is left of a run: its spec, its log, and the checkpoint it goes on from, if it had saved one."""

    spec: RunSpec
    log: history.History
    info: checkpoint.CheckpointInfo | None
    tensors: dict[str, Tensor]
    best: checkpoint.CheckpointInfo | None

    @property
    def step(self) -> int:
        """The step it goes on with."""
        return self.info.step if self.info else 0

    def restore(self, job: Job) -> Origin:
        """Put `job` where the checkpoint was taken; returns where the loop begins. Raises Invalid."""
        changes = [change for change in self.log.changes if change.field == "learning_rate"]
        common = {
            "started": self.log.started is not None,
            "recorded": self.log.losses,
            "recorded_seconds": self.log.seconds,
            "evaluated": self.log.evaluated,
            "executors": Executors(self.log.started.executor, self.log.switched) if self.log.started else None,
            "changes": [change for change in changes if change.step >= self.step],
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


def remains(run: Path) -> Remains:
    """Read what is left of a run. Raises Invalid where nothing is left to do or it cannot go on."""
    check_can_resume(run)
    return left_of(run)


def left_of(run: Path) -> Remains:
    """The same for a run whose engine is this process. A batch that was out of memory is not tried again."""
    record, log = read_record(run), history.read(run)
    info, tensors = _last(run)
    if info is not None and info.step > log.steps:  # the disk lost the end of the log: what it lacks is taken again
        info, tensors = None, {}
    spec = record.spec
    if log.started is not None and not spec.threads and log.started.device == "cpu":
        spec = msgspec.structs.replace(spec, threads=log.started.threads)  # sums depend on their number
    if log.smaller is not None:
        spec = msgspec.structs.replace(spec, batch_size=log.smaller[0], accumulate=log.smaller[1])
    return Remains(spec, log, info, tensors, _best(run))


def _last(run: Path) -> tuple[checkpoint.CheckpointInfo | None, dict[str, Tensor]]:
    if not checkpoint.exists(run, "last"):
        return None, {}
    return checkpoint.read(run, "last")


def _best(run: Path) -> checkpoint.CheckpointInfo | None:
    return checkpoint.read_info(run, "best") if checkpoint.exists(run, "best") else None
