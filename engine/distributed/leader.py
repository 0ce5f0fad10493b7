"""The other ranks of a run as rank 0 sees them: gathered, led, watched, dismissed."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from epochtop.engine.distributed.group import Group
from epochtop.engine.distributed.orders import (
    AverageLosses,
    End,
    Evaluate,
    RankError,
    RankFailure,
    Setup,
    ShareState,
    ShareWeights,
    TakeSteps,
    is_loss_of_others,
)
from epochtop.engine.job import state as job_state
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values

POLL_S = 0.02
DEVICE = "device"
"""Key of the kind of device that all ranks train on."""
NOTHING_TO_DO = "none"
"""In its place: the run has ended already."""
NOTICE_S = 2.0
"""How long the end of another rank may take to be seen."""


class RankLauncher(ABC):
    """The processes that are to become the other ranks, however they are started."""

    of: int
    """Ranks in all."""

    @abstractmethod
    def start(self) -> Any:
        """Start them, where they are ours to start; returns the store that all of them know."""

    @abstractmethod
    def failed_rank(self, patience_s: float = 0.0) -> RankFailure | None:
        """The rank that ended before its time, waiting so long for one; None if all live."""

    @abstractmethod
    def release(self) -> None:
        """They may end now."""

    @abstractmethod
    def close(self) -> None:
        """Leave none of them behind."""


class RankGroupLeader:
    """Leads the other ranks of one run."""

    def __init__(self, members: RankLauncher) -> None:
        self._members = members
        self._group: Group | None = None
        self._store: Any = None

    @property
    def group(self) -> Group:
        """The group, once it is gathered."""
        assert self._group is not None
        return self._group

    # --- before the first step ---------------------------------------------------------------------------

    def gather(self, job: Job, step: int, values: Values | None, tensors: Mapping[str, Tensor]) -> Job:
        """The job of rank 0 among all ranks, which build it too and restore the same checkpoint. Raises RankError."""
        self._store = self._members.start()
        self._wait_for("here")
        self._store.set(DEVICE, job.device.type)
        self._group = Group(self._store, 0, self._members.of, job.device)
        # sums depend on the number of threads: all ranks take rank 0's
        threads = torch.get_num_threads() if job.device.type == "cpu" else job.spec.threads
        if job.spec.shard:  # what a model can be too large for is dealt out in rows, tensor by tensor
            tensors = {name: tensor for name, tensor in tensors.items() if job_state.is_progress(name)}
        self._group.hand_out(setup_of(job, threads, step, values), tensors)
        self._wait_for("built")
        return self._group.join(job, step)

    def _wait_for(self, stage: str) -> None:
        keys = [f"{stage}/{rank}" for rank in range(1, self._members.of)]
        while not self._store.check(keys):
            if report := self._members.failed_rank():
                raise RankError(report)
            time.sleep(POLL_S)

    # --- while training ----------------------------------------------------------------------------------

    def take_steps(self, count: int, learning_rate: float, schedule: Values) -> None:
        """The others take so many steps, as the caller is about to do."""
        self.group.send(TakeSteps(count=count, learning_rate=learning_rate, schedule=schedule))

    def average(self, losses: Tensor) -> None:
        """The mean over all ranks in place of the losses since the last time; enqueued."""
        self.group.send(AverageLosses())
        self.group.average(losses)

    def state(self, job: Job) -> tuple[dict[str, Tensor], Values]:
        """What :func:`epochtop.engine.job.state.capture` gives, and what a checkpoint needs of the other ranks beside it."""
        self.group.send(ShareState())
        state, values = job_state.capture(job)
        return state | self.group.generators(), values

    def evaluate(self, step: int, test: bool, best: int, judged: int) -> None:
        """The others take part in an evaluation of sharded weights, as the caller is about to do.

        They keep copies of the weights of the `best` evaluation and of all after `judged`.
        """
        self.group.send(Evaluate(step=step, test=test, best=best, judged=judged))

    def whole(self, job: Job, weights: dict[str, Tensor], step: int | None) -> dict[str, Tensor]:
        """Of copies that :func:`epochtop.engine.job.state.weights` made before `step`, or just now, those of all ranks together."""
        if job.shards is None:
            return weights
        self.group.send(ShareWeights(step=step))
        return job.shards.assemble(weights)

    # --- the end -----------------------------------------------------------------------------------------

    def end(self) -> None:
        """Everything is done and read."""
        self._members.release()
        with contextlib.suppress(RuntimeError):  # a rank that dies now has done its work
            self.group.send(End())

    def failed_rank(self, error: BaseException) -> RankFailure | None:
        """After an exception in this process: the rank that caused it; None if it is this one's own."""
        if isinstance(error, RankError):
            return error.report
        return self._members.failed_rank(NOTICE_S) if is_loss_of_others(error) else None

    def close(self) -> None:
        """Leave no process behind."""
        self._members.close()


def setup_of(job: Job, threads: int, step: int, values: Values | None) -> Setup:
    """What the other ranks must know of a job."""
    return Setup(spec=msgspec.structs.replace(job.spec, threads=threads), step=step, values=values)


class Pace:
    """How many steps fit between two looks at the clock, judged by those before."""

    MOST_S = 0.1
    """Commands wait no longer than about this."""

    def __init__(self) -> None:
        self.steps = 1

    def took(self, steps: int, seconds: float, refresh_s: float) -> None:
        """`steps` took `seconds`. Grows fourfold at most, since the first ones tell little."""
        fitting = steps * min(self.MOST_S, refresh_s) / max(seconds, 1e-9)
        self.steps = max(1, min(int(fitting), 4 * self.steps))
