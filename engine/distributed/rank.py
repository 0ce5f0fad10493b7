"""A process that is a rank but the first: joins, builds the job that rank 0 hands out, does what it orders."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

import msgspec
import torch

from epochtop.engine.distributed.group import Group, follow_orders
from epochtop.engine.distributed.launcher import reach_store
from epochtop.engine.distributed.leader import DEVICE, NOTHING_TO_DO, POLL_S
from epochtop.engine.distributed.orders import RankFailure, Setup, is_loss_of_others, leave_report
from epochtop.engine.job import state
from epochtop.engine.job.failures import failed
from epochtop.engine.job.job import Job, build
from epochtop.engine.job.plan import describe
from epochtop.engine.job.workload import load_workload
from epochtop.engine.step.batches import DataShard

SEEDS = 2**63


def main(arguments: list[str]) -> int:
    """Entry of `python -m epochtop.engine rank RANK OF PORT`, which rank 0 starts; it holds the other end of our input."""
    rank, of, port = map(int, arguments)
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    return serve(reach_store(port), rank, of, local_rank=rank)


def _end_with_rank_0() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin, whose lock this thread would hold at the end
    os._exit(1)


def serve(store: Any, rank: int, of: int, local_rank: int) -> int:
    """Be rank `rank` of a run, to its end. Returns the exit status; what went wrong is left in the store."""
    task = ""
    try:
        store.set(f"here/{rank}", "1")
        kind = _kind_of_device(store)
        if kind == NOTHING_TO_DO:
            return 0
        for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)  # rank 0 hears them, stops in order and says so
        group = Group(store, rank, of, torch.device(f"cuda:{local_rank}" if kind == "cuda" else kind))
        setup, tensors = group.hand_out(None, {})
        task = setup.spec.task
        job = _build(setup, tensors, rank, of, local_rank)
        store.set(f"built/{rank}", "1")
        group.join(job, setup.step)
        follow_orders(job, group, setup.step)
        group.close()
    except BaseException as error:
        event = failed(error, 0, task=task)
        text = f"rank {rank}: {event.message}"
        report = RankFailure(
            rank=rank,
            message=text,
            advice=event.advice,
            traceback=event.traceback,
            lost=is_loss_of_others(error),
        )
        with contextlib.suppress(RuntimeError):  # rank 0 has gone, and the store with it
            leave_report(store, report)
        time.sleep(0.1)  # so that the report is there before our end is seen
        return 1
    return 0


def _kind_of_device(store: Any) -> str:
    """What rank 0 trains on, which it says when it has built its job."""
    while not store.check([DEVICE]):
        time.sleep(POLL_S)
    return str(store.get(DEVICE).decode())


def _build(setup: Setup, tensors: dict[str, torch.Tensor], rank: int, of: int, local_rank: int) -> Job:
    spec = setup.spec
    workload = load_workload(spec)
    made = describe(spec, workload)
    if made.device.startswith("cuda"):
        made = msgspec.structs.replace(made, device=f"cuda:{local_rank}")  # one GPU a process
    job = build(spec, workload, made, DataShard(rank, of))
    if setup.values is None:
        torch.manual_seed((setup.spec.seed + rank) % SEEDS)  # so that dropout differs from rank to rank
    elif setup.spec.shard:
        state.restore_progress(job, tensors, setup.values, rank)
    else:
        state.restore(job, tensors, setup.values, setup.step, rank)
    return job
