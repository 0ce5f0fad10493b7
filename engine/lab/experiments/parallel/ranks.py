"""Several processes that take steps of one job together, as the engine's runs with `processes` do, to be timed.

Where there is no GPU they are forked from this process, which has everything imported; else each is started anew.
They end with the `with` around them, and when this process does.
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

INTERFACE = "GLOO_SOCKET_IFNAME"
ORPHAN_S = 0.5
"""How soon a forked process notices that this one is gone."""


class Crew:
    """A job and the other ranks that take its steps together with this process, which is rank 0."""

    def __init__(self, job: Job, team: RankGroupLeader) -> None:
        self.job, self._team = job, team
        self._window = LossWindow(job.device, 0, team.average)
        self._step = 0

    def run(self, times: int) -> float:
        """Take so many steps together; returns the seconds of all of them, devices included."""
        job, rate = self.job, self.job.spec.learning_rate
        wait_for(job.device)
        begun = perf_counter()
        self._team.take_steps(times, rate, job.schedule.state_dict())
        run_steps(job, self._window, self._step, times, rate)
        wait_for(job.device)
        seconds = perf_counter() - begun
        self._step += times
        self._window.turn(0.0)
        return seconds


@contextmanager
def crew(spec: RunSpec, workload: Workload) -> Iterator[Crew]:
    """`spec.processes` processes with the job of `spec`, ready to take steps. Raises RankError where one of them fails."""
    before = os.environ.get(INTERFACE)
    job = prepare_job(spec, workload)
    members: RankLauncher = Forked(spec.processes) if may_fork() else LocalLauncher(spec.processes, give_up)
    team = RankGroupLeader(members)
    try:
        job = team.gather(job, 0, None, {})
        yield Crew(job, team)
        team.end()
    except (Stopped, GeneratorExit):
        team.end()
        raise
    except BaseException as error:
        report = team.failed_rank(error)
        if report is None:
            raise
        raise RankError(report) from error
    finally:
        team.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        _restore(before)


def may_fork() -> bool:
    """Whether a copy of this process can train: not beside a GPU, for which gradients have threads that a copy lacks."""
    return sys.platform == "linux" and not torch.cuda.is_available()


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(INTERFACE, None)
    else:
        os.environ[INTERFACE] = before


def give_up(report: RankFailure) -> None:
    """From another thread: end this process, whose main thread waits for ranks that are gone."""
    sys.stderr.write(f"{report.message}\n")
    os._exit(1)


class Forked(LocalLauncher):
    """Ranks that are copies of this process, where :func:`may_fork` allows it."""

    def __init__(self, of: int) -> None:
        super().__init__(of, give_up)

    def start(self) -> Any:
        import_module("torch._dynamo")  # DistributedDataParallel imports it: once here, not once a rank
        _stay_on_this_machine()
        store, port = open_store()
        self._reports = reach_store(port)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
            for rank in range(1, self.world_size):
                process = multiprocessing.get_context("fork").Process(
                    target=_follow, args=(rank, self.world_size, port)
                )
                process.start()
                self._children.append(_AsPopen(process))  # type: ignore[arg-type]
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        return store


class _AsPopen:
    """A forked process, as :class:`epochtop.engine.distributed.launcher.LocalLauncher` watches one."""

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


def _follow(rank: int, of: int, port: int) -> None:
    from epochtop.engine.distributed import rank as follower

    torch.set_num_threads(1)  # the threads of an operator are not copied
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os._exit(follower.serve(reach_store(port), rank, of, local_rank=rank))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_S)
    os._exit(1)
