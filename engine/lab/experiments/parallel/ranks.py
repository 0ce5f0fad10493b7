"""A group of ranks that run steps of one job together, as the engine's runs with `processes` do, to be timed.

Without a GPU they are forked from this process, which has imported everything; otherwise each is a new process. They end
with the `with` block around them, and with this process.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import Any

import torch

from epochtop.engine.distributed import rank as rank_module
from epochtop.engine.distributed.group import run_steps
from epochtop.engine.distributed.launcher import LocalLauncher, _stay_on_this_machine, open_store, reach_store
from epochtop.engine.distributed.leader import RankGroupLeader, RankLauncher
from epochtop.engine.distributed.orders import RankError, RankFailure
from epochtop.engine.job.job import Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.workload import Workload
from epochtop.engine.lab.experiment import Stopped
from epochtop.engine.lab.instruments.clocks import wait_for
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.window import LossWindow
from epochtop.engine.terminal.output import write_log

INTERFACE = "GLOO_SOCKET_IFNAME"
ORPHAN_S = 0.5
"""Interval at which a forked process checks that this one still exists."""


class RankGroup:
    """A job and the ranks that run its steps together with this process, which is rank 0."""

    def __init__(self, job: Job, leader: RankGroupLeader) -> None:
        self.job, self._leader = job, leader
        self._window = LossWindow(job.device, 0, leader.average)
        self._step = 0

    def run(self, times: int) -> float:
        """Run `times` steps together; returns their seconds, devices included."""
        job, rate = self.job, self.job.spec.learning_rate
        wait_for(job.device)
        start = perf_counter()
        self._leader.take_steps(times, rate, job.schedule.state_dict())
        run_steps(job, self._window, self._step, times, rate)
        wait_for(job.device)
        seconds = perf_counter() - start
        self._step += times
        self._window.turn(0.0)
        return seconds


@contextmanager
def rank_group(spec: RunSpec, workload: Workload) -> Iterator[RankGroup]:
    """`spec.processes` processes with the job of `spec`, ready to run steps. Raises RankError if one of them fails."""
    interface_before = os.environ.get(INTERFACE)
    job = prepare_job(spec, workload)
    launcher: RankLauncher = ForkLauncher(spec.processes) if may_fork() else LocalLauncher(spec.processes, give_up)
    leader = RankGroupLeader(launcher)
    try:
        job = leader.gather(job, 0, None, {})
        yield RankGroup(job, leader)
        leader.end()
    except (Stopped, GeneratorExit):
        leader.end()
        raise
    except BaseException as error:
        failure = leader.failed_rank(error)
        if failure is None:
            raise
        raise RankError(failure) from error
    finally:
        leader.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        _restore_interface(interface_before)


def may_fork() -> bool:
    """Whether a fork of this process can train: not with a GPU, whose gradients need threads that a fork lacks."""
    return sys.platform == "linux" and not torch.cuda.is_available()


def _restore_interface(before: str | None) -> None:
    if before is None:
        os.environ.pop(INTERFACE, None)
    else:
        os.environ[INTERFACE] = before


def give_up(failure: RankFailure) -> None:
    """Called in another thread: end this process, whose main thread waits for ranks that have ended."""
    write_log(f"{failure.message}\n")
    os._exit(1)


class ForkLauncher(LocalLauncher):
    """Ranks that are forks of this process, if :func:`may_fork` allows it."""

    def __init__(self, of: int) -> None:
        super().__init__(of, give_up)

    def start(self) -> Any:
        import_module("torch._dynamo")  # DistributedDataParallel imports it: once here, not once per rank
        _stay_on_this_machine()
        store, port = open_store()
        self._reports = reach_store(port)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks in processes with threads
            for rank in range(1, self.world_size):
                process = multiprocessing.get_context("fork").Process(
                    target=_serve_rank, args=(rank, self.world_size, port)
                )
                process.start()
                self._children.append(_ForkedProcess(process))  # type: ignore[arg-type]
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        return store


class _ForkedProcess:
    """A forked process with the interface that :class:`epochtop.engine.distributed.launcher.LocalLauncher` watches."""

    stdin = None

    def __init__(self, process: BaseProcess) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired("rank", timeout or 0.0)
        return status


def _serve_rank(rank: int, of: int, port: int) -> None:
    torch.set_num_threads(1)  # a fork has no copies of an operator's threads
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os._exit(rank_module.serve(reach_store(port), rank, of, local_rank=rank))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_S)
    os._exit(1)
