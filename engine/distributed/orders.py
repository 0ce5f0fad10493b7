"""What travels between the ranks of one training: orders, setup and failure reports."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec

from epochtop.engine.job.state import Values
from epochtop.engine.protocol.events import UNREADABLE, Failed
from epochtop.engine.protocol.spec import RunSpec

ORDER_BYTES = 512
"""Room for an order: each travels as one broadcast of a fixed size."""


class Order(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """What rank 0 asks of the others."""


class TakeSteps(Order, frozen=True, kw_only=True):
    """Take `count` steps with this rate before the schedule, and what the schedule remembers."""

    count: int
    learning_rate: float
    schedule: Values


class AverageLosses(Order, frozen=True, kw_only=True):
    """Average the losses recorded since the last time over the ranks."""


class ShareState(Order, frozen=True, kw_only=True):
    """Send what a checkpoint needs of every rank."""


class Evaluate(Order, frozen=True, kw_only=True):
    """Evaluate sharded weights with rank 0, as they are before `step`; keep a copy of them, unless for the final `test`."""

    step: int
    test: bool
    best: int
    """Copies of evaluations up to `judged` are not wanted any more, except that of this step."""
    judged: int


class ShareWeights(Order, frozen=True, kw_only=True):
    """Send the sharded weights that were evaluated before `step`, or those there are now."""

    step: int | None


class End(Order, frozen=True, kw_only=True):
    """The run is over."""


AnyOrder = TakeSteps | AverageLosses | ShareState | Evaluate | ShareWeights | End


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank must know to build the same job as rank 0."""

    spec: RunSpec
    step: int
    values: Values | None
    """Of the checkpoint that the run goes on from; None at the beginning."""


class RankFailure(msgspec.Struct, frozen=True, kw_only=True):
    """How a rank failed, in its own words."""

    rank: int
    message: str
    advice: str = ""
    traceback: str = ""
    lost: bool = False
    """Whether it failed only because another one was gone."""

    def event(self, step: int) -> Failed:
        """The end of a run in which `step` steps were taken."""
        return Failed(time=time.time(), step=step, message=self.message, advice=self.advice, traceback=self.traceback)


class RankError(RuntimeError):
    """Another rank has ended before its time."""

    def __init__(self, report: RankFailure) -> None:
        super().__init__(report.message)
        self.report = report


REPORTS = "reports"


def leave_report(store: Any, report: RankFailure) -> None:
    """Put a report where rank 0 finds it. The first one to come tells the cause: the others follow from it."""
    number = store.add(REPORTS, 1)
    store.set(f"{REPORTS}/{number}", msgspec.json.encode(report))


def reports(store: Any) -> list[RankFailure]:
    """All that were left, the first one first."""
    found: list[RankFailure] = []
    try:
        while store.check([f"{REPORTS}/{len(found) + 1}"]):
            found.append(msgspec.json.decode(store.get(f"{REPORTS}/{len(found) + 1}"), type=RankFailure))
    except (RuntimeError, *UNREADABLE):  # the store is gone with the process that held it
        pass
    return found


BROKEN = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused|aborted)|broken pipe|tcpstore", re.IGNORECASE)


def is_loss_of_others(error: BaseException) -> bool:
    """Whether an exchange was broken, as it is when another rank ends."""
    return isinstance(error, RuntimeError) and bool(BROKEN.search(str(error)))
