"""What travels between the ranks of one run: orders, setup and failure reports."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec

from epochtop.engine.job.state import Values
from epochtop.engine.protocol.events import UNREADABLE, Failed
from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import RunSpec

ORDER_BYTES = 512
"""Size of an order: every order travels as one broadcast of this size."""


class Order(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """A request from rank 0 to all other ranks."""


class TakeSteps(Order, frozen=True, kw_only=True):
    """Take steps."""

    count: int
    learning_rate: float
    """Learning rate before the schedule."""
    schedule: Values
    """The schedule's state."""


class AverageLosses(Order, frozen=True, kw_only=True):
    """Average the losses since the last window over the ranks."""


class ShareState(Order, frozen=True, kw_only=True):
    """Send what a checkpoint needs of every rank."""


class Evaluate(Order, frozen=True, kw_only=True):
    """Evaluate sharded weights together with rank 0; keep a copy of them, unless for the final test."""

    step: int
    """Steps taken before this evaluation."""
    test: bool
    """Whether it is the final test."""
    best: int
    """Step of the best evaluation, whose copy is still needed."""
    arrived: int
    """Step of the last evaluation whose figures have arrived; copies up to it are dropped, except the best."""


class ShareWeights(Order, frozen=True, kw_only=True):
    """Send sharded weights."""

    step: int | None
    """Step of the evaluation whose copy is meant; None for the current weights."""


class End(Order, frozen=True, kw_only=True):
    """The run has ended."""


AnyOrder = TakeSteps | AverageLosses | ShareState | Evaluate | ShareWeights | End


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank needs to build the job of rank 0."""

    spec: RunSpec
    step: int
    """Steps taken already."""
    values: Values | None
    """Plain values of the checkpoint that the run continues from; None for a new run."""
    task_record: TaskRecord | None = None
    """The code of rank 0's task; None for a dataset."""


class RankFailure(msgspec.Struct, frozen=True, kw_only=True):
    """How a rank failed."""

    rank: int
    message: str
    advice: str = ""
    traceback: str = ""
    lost: bool = False
    """Whether it failed only because another rank was gone."""

    def event(self, step: int) -> Failed:
        """The last event of a run that failed after `step` steps."""
        return Failed(time=time.time(), step=step, message=self.message, advice=self.advice, traceback=self.traceback)


class RankError(RuntimeError):
    """Another rank has ended too early."""

    def __init__(self, report: RankFailure) -> None:
        super().__init__(report.message)
        self.report = report


REPORTS = "reports"
"""Key of the number of reports in a store."""


def leave_report(store: Any, report: RankFailure) -> None:
    """Put a report into the store for rank 0. The first report shows the cause: the others follow from it."""
    number = store.add(REPORTS, 1)
    store.set(f"{REPORTS}/{number}", msgspec.json.encode(report))


def reports(store: Any) -> list[RankFailure]:
    """All reports in the store, the first one first."""
    failures: list[RankFailure] = []
    try:
        while store.check([f"{REPORTS}/{len(failures) + 1}"]):
            failures.append(msgspec.json.decode(store.get(f"{REPORTS}/{len(failures) + 1}"), type=RankFailure))
    except (RuntimeError, *UNREADABLE):  # the store is gone with the process that opened it
        pass
    return failures


BROKEN = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused|aborted)|broken pipe|tcpstore", re.IGNORECASE)


def is_loss_of_others(error: BaseException) -> bool:
    """Whether an exchange between ranks broke off, as it does when another rank ends."""
    return isinstance(error, RuntimeError) and bool(BROKEN.search(str(error)))
