"""A rank other than 0: joins the group, builds the job of rank 0 and executes its orders."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from epochtop.engine.device import generators
from epochtop.engine.distributed.group import Group, follow_orders
from epochtop.engine.distributed.launcher import reach_store
from epochtop.engine.distributed.leader import DEVICE, NOTHING_TO_DO, POLL_S
from epochtop.engine.distributed.orders import RankFailure, Setup, is_loss_of_others, leave_report
from epochtop.engine.distributed.presence import PresenceTeller, Progress
from epochtop.engine.job import state
from epochtop.engine.job.failures import failed
from epochtop.engine.job.job import Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.tasks.sources import enter_working_folder

SEEDS = 2**63
RANK_0_SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGQUIT,
    signal.SIGALRM,
)  # fmt: skip
"""Signals that a batch system may send to all ranks and that would end one."""


def main(arguments: list[str]) -> int:
    """Entry of `python -m epochtop.engine rank RANK WORLD_SIZE PORT`, which rank 0 starts with a pipe as input."""
    rank, world_size, port = map(int, arguments)
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    return serve(reach_store(port), rank, world_size, local_rank=rank, connect=lambda: reach_store(port))


def _end_with_rank_0() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin, whose lock this thread would hold at the end
    os._exit(1)


def serve(store: Any, rank: int, world_size: int, local_rank: int, connect: Callable[[], Any] | None = None) -> int:
    """Serve as rank `rank` until the run ends. Returns the exit status; a failure is reported in the store.

    `connect` opens another connection to the store, for telling rank 0 where this rank is.
    """
    job: Job | None = None
    task = ""
    progress = Progress()
    teller = None if connect is None else PresenceTeller(connect, rank, progress)
    try:
        if teller is not None:
            teller.start()
        store.set(f"here/{rank}", "1")
        kind = _kind_of_device(store)
        if kind == NOTHING_TO_DO:
            return 0
        for ignored in RANK_0_SIGNALS:
            signal.signal(ignored, signal.SIG_IGN)  # rank 0 answers them: it stops the run in order
        group = Group(store, rank, world_size, torch.device(f"cuda:{local_rank}" if kind == "cuda" else kind), progress)
        setup, tensors = group.hand_out(None, {})
        task = setup.spec.task
        job = _build(setup, tensors, rank, f"cuda:{local_rank}" if kind == "cuda" else "")
        store.set(f"built/{rank}", "1")
        job = group.join(job, setup.step)
        follow_orders(job, group, setup.step)
        group.close()
    except BaseException as error:
        event = failed(error, 0, job, task=task)
        report = RankFailure(
            rank=rank,
            message=f"rank {rank}: {event.message}",
            advice=event.advice,
            traceback=event.traceback,
            lost=is_loss_of_others(error),
        )
        with contextlib.suppress(RuntimeError):  # rank 0 is gone, and the store with it
            leave_report(store, report)
        time.sleep(0.1)  # the report must be there before rank 0 sees that this process has ended
        return 1
    finally:
        if teller is not None:
            teller.close()
    return 0


def _kind_of_device(store: Any) -> str:
    """The kind of device that rank 0 trains on, once it has built its job."""
    while not store.check([DEVICE]):
        time.sleep(POLL_S)
    return str(store.get(DEVICE).decode())


def _build(setup: Setup, tensors: dict[str, torch.Tensor], rank: int, device: str) -> Job:
    enter_working_folder(setup.task_record)
    job = prepare_job(setup.spec, rank=rank, device=device, task_record=setup.task_record)
    if setup.values is None:
        generators.seed((setup.spec.seed + rank) % SEEDS)  # so that dropout differs from rank to rank
    elif setup.spec.shard:
        state.restore_progress(job, tensors, setup.values, rank)
    else:
        state.restore(job, tensors, setup.values, setup.step, rank)
    return job
