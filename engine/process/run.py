"""One training run in the engine's process: train, publish, and turn every exception into an event.

The process belongs to no viewer: its input is closed, its output goes to the run's output.log.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import msgspec
import torch
from torch import Tensor

from epochtop.engine.device import inventory
from epochtop.engine.device.footprint import Footprint
from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.device.peak import release
from epochtop.engine.distributed.hanging import Reactions
from epochtop.engine.distributed.launcher import LocalLauncher
from epochtop.engine.distributed.leader import RankGroupLeader, RankLauncher
from epochtop.engine.distributed.orders import RankFailure
from epochtop.engine.execution.choice import ExecutorChoice
from epochtop.engine.job import memory_estimate
from epochtop.engine.job.failures import explain, failed
from epochtop.engine.job.job import Job
from epochtop.engine.job.oom_advice import batch_words, smaller
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.workload import Workload
from epochtop.engine.process import daemon, signals
from epochtop.engine.protocol.events import (
    CHECKPOINT_DAMAGED,
    DISK_SPACE,
    RANK_HANGS,
    TASK_CHANGED,
    Continued,
    Failed,
    Finished,
    Noted,
    Started,
    Warned,
    encode,
)
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs import paths, writer
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.tasks.sources import describe_changes
from epochtop.engine.training import checkpoint
from epochtop.engine.training.loop import Loop
from epochtop.engine.training.recorder import Recorder
from epochtop.engine.training.resume import Origin, RecordedRun, recorded_run
from epochtop.engine.training.telemetry import TelemetryRecorder


@dataclass(frozen=True)
class Start:
    """What training begins with."""

    job: Job
    origin: Origin = field(default_factory=Origin)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """The checkpoint's, for the other ranks."""
    resumed: bool = False
    """Whether the run has been served before, by a process that ended."""
    reason: str = ""
    """Why a run continues with smaller batches; empty for any other run."""
    task_changes: str = ""
    """How the task's files differ from those of the run, for people; empty if they do not."""


@dataclass(frozen=True)
class Interruption:
    """Training that ended with an exception."""

    event: Failed
    spec: RunSpec
    """The job that failed."""
    smaller: RunSpec | None = None
    """The same steps in smaller batches, if the run may continue with them."""
    workload: Workload | None = None
    """Data to reuse; None for a task, whose model has been trained already."""


class Run:
    """One run in this process, which leads the other ranks if several processes train."""

    def __init__(
        self,
        start: Start,
        path: Path,
        lock: IO[bytes],
        launched: RankLauncher | None = None,
        attached: bool = False,
        footprint: Footprint | None = None,
    ) -> None:
        """`lock` is the run directory's lock, which this object keeps open.

        `launched` are ranks that were started from outside. `attached` keeps standard input and output.
        `footprint` measures the memory that the run uses.
        """
        self._start: Start | None = start
        self._spec, self._step = start.job.spec, start.origin.step
        # a viewer may send a command as soon as it knows that the run is resumed, before its commands are read
        self._commands_from = writer.commands_end(path) if start.resumed else 0
        self.plan = msgspec.structs.replace(start.job.plan, summary=None)
        self.path, self._lock = path, lock
        self._launched, self._attached, self._footprint = launched, attached, footprint
        self._leader: RankGroupLeader | None = None
        self._loop: Loop | None = None
        """The loop that is training; None before and between two."""

    def serve(self) -> int:
        """Train to the end, whatever the end is. Returns the exit status: 1 for a run that failed."""
        return daemon.serve(self, self.path, self._spec, attached=self._attached, commands_from=self._commands_from)

    # --- as the daemon's work ----------------------------------------------------------------------------

    def run(self, recorder: Recorder) -> Finished | Failed:
        """Train, in smaller batches if memory runs out and the spec allows it; returns the last event."""
        self._leader = self._make_leader(recorder)
        while True:
            end = self._train(self._take_start(), recorder)
            if isinstance(end, Finished):
                return end
            try:
                self._start = self._smaller_start(end, recorder)
            except Exception as error:
                message = f"{end.event.message}; smaller batches could not be tried: {explain(error)[0]}"
                return msgspec.structs.replace(end.event, message=message)
            if self._start is None:
                return end.event

    def wake(self) -> None:
        """Let the loop look at its commands; a loop that begins does so without being told."""
        loop = self._loop
        if loop is not None:
            loop.wake()

    def close(self) -> None:
        """Leave none of the other ranks behind."""
        if self._leader is not None:
            self._leader.close()

    # --- training ----------------------------------------------------------------------------------------

    def _take_start(self) -> Start:
        """What training begins with. It is handed over, so that nothing else keeps the job's memory alive."""
        start, self._start = self._start, None
        assert start is not None
        return start

    def _train(self, start: Start, recorder: Recorder) -> Finished | Interruption:
        """Train to the end. After an exception, no reference to the job or the loop remains."""
        job, leader = start.job, self._leader
        try:
            self._write_preparation(job)
            if leader is not None:
                job = leader.gather(job, start.origin.step, start.origin.values, start.tensors)
            start = replace(start, job=job, tensors={})  # tensors are as large as the model and its optimizer state
            self._loop = loop = Loop(job, recorder, start.origin, leader)
            _announce(start, loop, recorder)
            self._warn_of_small_disk(job, recorder)
            daemon.freeze_heap()
            with _telemetry(job, recorder):
                finished = self._with_memory(loop.run(), job)
            if not (self.path / paths.PREPARATION).exists():
                self._write_preparation(job)
            if leader is not None:
                leader.end()
            return finished
        except BaseException as error:
            return self._interrupted(error, job)
        finally:
            self._loop = None

    def _interrupted(self, error: BaseException, job: Job) -> Interruption:
        signals.forget_workers()
        if self._loop is not None:
            self._loop.rescue()
            self._step = self._loop.step
        if not job.spec.oom_retry or self._leader is not None or not is_out_of_memory(error):
            return Interruption(self._failure(error, job), job.spec)
        workload = None if job.spec.task else job.workload
        return Interruption(self._failure(error, job), job.spec, smaller(job.spec, job.plan.rows), workload)

    def _smaller_start(self, end: Interruption, recorder: Recorder) -> Start | None:
        """The same steps in smaller batches, from the last checkpoint; None if the run must end."""
        if end.smaller is None or not recorder.restart(end.smaller):
            return None
        gc.unfreeze()
        release(torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))
        recorded = recorded_run(self.path)
        spec = msgspec.structs.replace(end.smaller, threads=recorded.spec.threads)
        # trying shows what fits; an estimate might refuse it
        job = prepare_job(spec, end.workload, checked=False, task_record=recorded.task_record)
        reason = f"out of memory with batches of {batch_words(end.spec)}; now {batch_words(end.smaller)}"
        return Start(job, recorded.restore(job), reason=reason)

    def _failure(self, error: BaseException, job: Job) -> Failed:
        report = self._leader.failed_rank(error) if self._leader is not None else None
        return failed(error, self._step, job) if report is None else report.event(self._step)

    def _make_leader(self, recorder: Recorder) -> RankGroupLeader | None:
        give_up = partial(self._give_up, recorder)
        if self._launched is None and self._spec.processes == 1:
            return None
        signals.note_stops(self._spec, recorder.stop_requested)
        reactions = Reactions(
            name=lambda message: recorder.put(Warned(message=message, code=RANK_HANGS)),
            recovered=lambda rank: recorder.put(Noted(message=f"rank {rank} takes part again", code=RANK_HANGS)),
            stop_requested=recorder.stop_requested.is_set,
            give_up=give_up,
        )
        return RankGroupLeader(self._launched or LocalLauncher(self._spec.processes, give_up), reactions)

    def _give_up(self, recorder: Recorder, report: RankFailure) -> None:
        """End this process from another thread, because its main thread waits for ranks that are gone."""
        loop = self._loop
        recorder.put(report.event(self._step if loop is None else loop.step))
        recorder.close()
        os._exit(1)

    def _write_preparation(self, job: Job) -> None:
        """Record how rows are prepared. A full disk, which the recorder reports, does not end the run."""
        preparation = job.workload.preparation
        if preparation is not None:
            with contextlib.suppress(OSError):
                write_atomically(self.path / paths.PREPARATION, encode(preparation))
        if job.workload.task_record is not None:
            with contextlib.suppress(OSError):
                write_atomically(self.path / paths.TASK, encode(job.workload.task_record))

    def _warn_of_small_disk(self, job: Job, recorder: Recorder) -> None:
        """Report before the first step that the run's checkpoints will not fit on the disk.

        A new checkpoint is written before the old one is removed, so a run that saves repeatedly needs twice the space.
        """
        one_copy = not job.spec.save_every or checkpoint.exists(self.path, checkpoint.LAST)
        needed = memory_estimate.checkpoint_bytes(job.spec, job.plan) * (1 if one_copy else 2)
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.path).free
            if free < needed:
                message = (
                    f"checkpoints need {format_bytes(needed)}, but only {format_bytes(free)} are free for {self.path}; "
                    "free space, or the run may end without weights"
                )
                recorder.put(Warned(message=message, code=DISK_SPACE))

    def _with_memory(self, end: Finished, job: Job) -> Finished:
        """The summary with the planned and the measured memory."""
        peak = self._footprint.bytes() if self._footprint is not None else None
        return msgspec.structs.replace(end, planned_memory_bytes=job.plan.memory_bytes, peak_memory_bytes=peak)


@contextlib.contextmanager
def _telemetry(job: Job, recorder: Recorder) -> Iterator[None]:
    telemetry = TelemetryRecorder(recorder.put, inventory.uuid(job.device))
    telemetry.start()
    try:
        yield
    finally:
        telemetry.close()


# --- the first event -------------------------------------------------------------------------------------


def _announce(start: Start, loop: Loop, recorder: Recorder) -> None:
    """Record the event that training begins with. Compiles first what the executor needs."""
    executor = loop.prepare().name
    if not start.origin.started:
        recorder.put(_started(start.job, executor, loop.choice))
        return
    recorder.put(_continued(start, executor))
    for problem in start.origin.problems:
        recorder.put(Warned(message=problem, code=CHECKPOINT_DAMAGED))
    if start.task_changes:
        recorder.put(Noted(message=start.task_changes, code=TASK_CHANGED))
    for note in loop.choice.notes:
        recorder.put(note)


def _continued(start: Start, executor: str) -> Continued:
    spec = start.job.spec
    return Continued(
        time=time.time(),
        step=start.origin.step,
        recorded=len(start.origin.recorded),
        device=str(start.job.device),
        executor=executor,
        why=start.reason,
        batch_size=spec.batch_size if start.reason else None,
        accumulate=spec.accumulate if start.reason else 1,
    )


def _started(job: Job, executor: str, choice: ExecutorChoice) -> Started:
    plan = job.plan
    cuda = job.device.type == "cuda"
    return Started(
        time=time.time(),
        device=str(job.device),
        device_name=torch.cuda.get_device_name(job.device) if cuda else inventory.cpu_name(),
        executor=executor,
        threads=torch.get_num_threads(),
        processes=job.spec.processes,
        rows=plan.rows,
        test_rows=plan.test_rows,
        features=plan.features,
        outputs=plan.outputs,
        parameters=plan.parameters,
        steps=plan.steps,
        steps_per_epoch=plan.steps_per_epoch,
        loss=job.workload.loss,
        metric=job.evaluator.metrics.main,
        eval_split=job.eval_split,
        classes=job.workload.classes,
        precision=job.spec.precision,
        torch_version=str(torch.__version__),
        notes=(*job.notes, *(note.message for note in choice.notes)),
        columns=plan.columns,
        fallback=choice.fallback,
    )


# --- from a request to a run -----------------------------------------------------------------------------


def new_run(
    job: Job,
    home: Path,
    launched: RankLauncher | None = None,
    attached: bool = False,
    footprint: Footprint | None = None,
) -> Run:
    """A run of `job` with a new directory in `home`. From now on signals are meant for it. Raises OSError."""
    signals.hold()
    path, lock = writer.create(home, job.spec, versions(), time.time())
    return Run(Start(job), path, lock, launched, attached, footprint)


def resumed_run(
    job: Job,
    recorded: RecordedRun,
    path: Path,
    launched: RankLauncher | None = None,
    attached: bool = False,
    footprint: Footprint | None = None,
) -> Run:
    """The run at `path`, continued by `job` from its last checkpoint. From now on signals are meant for it."""
    origin = recorded.restore(job)
    changes = describe_changes(recorded.task_record, job.spec.task) if job.spec.task else ""
    signals.hold()
    start = Start(job, origin, recorded.tensors, resumed=True, task_changes=changes)
    return Run(start, path, writer.reopen(path), launched, attached, footprint)


def versions() -> dict[str, str]:
    """Versions of the packages that a run is made with."""
    numbers = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
    for name in ("epochtop", "scikit-learn", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            numbers[name] = version(name)
    return numbers
