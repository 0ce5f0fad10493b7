"""The other ranks of a run as rank 0 sees them: started, gathered, led, watched, released."""

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
from epochtop.engine.distributed.hanging import HangWatch, Reactions, patience_s
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
from epochtop.engine.distributed.presence import Progress
from epochtop.engine.job import state as job_state
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values

POLL_S = 0.02
DEVICE = "device"
"""Key in the store: the kind of device that all ranks train on."""
NOTHING_TO_DO = "none"
"""Its value if the run has ended already."""
NOTICE_S = 2.0
"""How long it may take to see that another rank has ended."""


class RankLauncher(ABC):
    """Starts and watches the processes of the other ranks."""

    world_size: int
    """Number of ranks, rank 0 included."""

    @abstractmethod
    def start(self) -> Any:
        """Start the ranks, unless they run already; returns the store that all ranks use."""

    @abstractmethod
    def failed_rank(self, patience_s: float = 0.0) -> RankFailure | None:
        """A rank that has ended too early; None if all are alive after `patience_s`."""

    @abstractmethod
    def connect(self) -> Any:
        """Another connection to the store, for another thread."""

    @abstractmethod
    def end_rank(self, report: RankFailure) -> bool:
        """End the process of a rank because of `report`. False if that is not possible from here."""

    @abstractmethod
    def release(self) -> None:
        """Let the ranks end."""

    @abstractmethod
    def close(self) -> None:
        """Leave no process behind."""


class RankGroupLeader:
    """Leads the other ranks of one run."""

    def __init__(self, launcher: RankLauncher, reactions: Reactions | None = None) -> None:
        """`reactions` are what happens if a rank hangs. Without them, hanging ranks are not detected."""
        self._launcher = launcher
        self._progress = Progress()
        self._hangs = None if reactions is None else HangWatch(launcher, self._progress, reactions)
        self._group: Group | None = None
        self._store: Any = None

    @property
    def group(self) -> Group:
        """The group, once its ranks are gathered."""
        assert self._group is not None
        return self._group

    # --- before the first step ---------------------------------------------------------------------------

    def gather(self, job: Job, step: int, values: Values | None, tensors: Mapping[str, Tensor]) -> Job:
        """The job of rank 0 among all ranks, which build it too and restore the same checkpoint. Raises RankError."""
        self._store = self._launcher.start()
        self._wait_for("here")
        self._store.set(DEVICE, job.device.type)
        self._group = Group(self._store, 0, self._launcher.world_size, job.device, self._progress)
        # sums depend on the number of threads: all ranks use that of rank 0
        threads = torch.get_num_threads() if job.device.type == "cpu" else job.spec.threads
        if job.spec.shard:  # large tensors are sent later, in rows, one by one
            tensors = {name: tensor for name, tensor in tensors.items() if job_state.is_progress(name)}
        self._group.hand_out(setup_of(job, threads, step, values), tensors)
        self._wait_for("built")
        if self._hangs is not None:
            self._hangs.start()
        return self._group.join(job, step)

    def _wait_for(self, stage: str) -> None:
        keys = [f"{stage}/{rank}" for rank in range(1, self._launcher.world_size)]
        until = time.monotonic() + patience_s()
        while not self._store.check(keys):
            if report := self._launcher.failed_rank():
                raise RankError(report)
            if self._hangs is not None and self._hangs.stop_requested and time.monotonic() > until:
                raise RankError(RankFailure(rank=0, message="the run was stopped before all ranks were ready"))
            time.sleep(POLL_S)

    # --- while training ----------------------------------------------------------------------------------

    def take_steps(self, count: int, learning_rate: float, schedule: Values) -> None:
        """Order `count` steps, which the caller must take too."""
        self.group.send(TakeSteps(count=count, learning_rate=learning_rate, schedule=schedule))

    def average(self, losses: Tensor) -> None:
        """Replace the losses of a window by their mean over all ranks; enqueued."""
        self.group.send(AverageLosses())
        self.group.average(losses)

    def state(self, job: Job) -> tuple[dict[str, Tensor], Values]:
        """The state from :func:`epochtop.engine.job.state.capture`, with the generators of all other ranks."""
        self.group.send(ShareState())
        state, values = job_state.capture(job)
        return state | self.group.generators(), values

    def evaluate(self, step: int, test: bool, best: int, arrived: int) -> None:
        """Order an evaluation of sharded weights, in which the caller must take part.

        The ranks keep copies of the weights of the evaluation at step `best` and of all after step `arrived`.
        """
        self.group.send(Evaluate(step=step, test=test, best=best, arrived=arrived))

    def unsharded(self, job: Job, weights: dict[str, Tensor], step: int | None) -> dict[str, Tensor]:
        """All rows of the weights copied by :func:`epochtop.engine.job.state.weights` before `step`, or just now."""
        if job.shards is None:
            return weights
        self.group.send(ShareWeights(step=step))
        return job.shards.assemble(weights)

    # --- the end -----------------------------------------------------------------------------------------

    def end(self) -> None:
        """Release the ranks after the last step has been read."""
        self._launcher.release()
        if self._hangs is not None:
            self._hangs.ending = True
        with contextlib.suppress(RuntimeError):  # a rank that dies now has finished
            self.group.send(End())
            self.group.close()  # NCCL lets the other ranks leave only together with this one

    def failed_rank(self, error: BaseException) -> RankFailure | None:
        """The rank that caused an exception in this process; None if this process did."""
        if isinstance(error, RankError):
            return error.report
        return self._launcher.failed_rank(NOTICE_S) if is_loss_of_others(error) else None

    def close(self) -> None:
        """Leave no process behind."""
        if self._hangs is not None:
            self._hangs.close()
        self._launcher.close()


def setup_of(job: Job, threads: int, step: int, values: Values | None) -> Setup:
    """The setup that other ranks need for the job."""
    spec = msgspec.structs.replace(job.spec, threads=threads)
    return Setup(spec=spec, step=step, values=values, task_record=job.workload.task_record)


class Pace:
    """How many steps to order at once, from the time of earlier steps."""

    MOST_S = 0.1
    """About how long commands may wait."""

    def __init__(self) -> None:
        self.steps = 1

    def update(self, steps: int, seconds: float, refresh_s: float) -> None:
        """Adapt to `steps` that took `seconds`. Grows at most fourfold, because first steps are not typical."""
        fitting = steps * min(self.MOST_S, refresh_s) / max(seconds, 1e-9)
        self.steps = max(1, min(int(fitting), 4 * self.steps))
