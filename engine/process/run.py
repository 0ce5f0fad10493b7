"""One run in the engine's process: train, publish, and turn every exception into an event.

It belongs to nobody: input closed, output in the run's output.log, its own session.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import msgspec
import torch
from torch import Tensor

from epochtop.engine.device import inventory
from epochtop.engine.device.footprint import Footprint
from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.device.peak import release
from epochtop.engine.device.select import choose_device
from epochtop.engine.distributed.launcher import LocalLauncher
from epochtop.engine.distributed.leader import RankGroupLeader, RankLauncher
from epochtop.engine.distributed.orders import RankFailure
from epochtop.engine.job.failures import explain, failed
from epochtop.engine.job.job import Job, build
from epochtop.engine.job.oom_advice import batch_words, smaller
from epochtop.engine.job.plan import make_plan
from epochtop.engine.job.workload import load_workload
from epochtop.engine.process.daemon import detach
from epochtop.engine.protocol.events import Continued, Failed, Finished, Started, Stop, encode
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs import paths, writer
from epochtop.engine.training.loop import Loop
from epochtop.engine.training.recorder import Recorder
from epochtop.engine.training.resume import Origin, left_of
from epochtop.engine.training.telemetry import Telemetry

RUN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class _Ended:
    """How an attempt ended that did not mean to: what to tell, and the spec to begin again with, if there is one."""

    event: Failed
    smaller: RunSpec | None


class Run:
    """One run in a process of its own, which leads others where several train."""

    def __init__(
        self,
        job: Job,
        path: Path,
        lock: IO[bytes],
        origin: Origin | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        launched: RankLauncher | None = None,
        attached: bool = False,
        footprint: Footprint | None = None,
    ) -> None:
        """`tensors` are those of the checkpoint at `origin`; `launched` are other ranks that somebody else started.

        `attached` leaves input and output where they are. `footprint` measures the memory that the run holds.
        """
        self._job, self.path, self._lock, self._origin = job, path, lock, origin
        self._tensors, self._launched, self._attached = tensors or {}, launched, attached
        self._team: RankGroupLeader | None = None
        self._footprint = footprint
        self._why = ""
        """What made it begin again."""

    def serve(self) -> int:
        """Train to the end, whatever the end is. Returns the exit status: 1 for a run that failed."""
        if not self._attached:
            detach(self.path)
        self._write_preparation()
        recorder = Recorder(self.path, self._job.spec, goes_on=self._origin is not None)
        self._team = self._gathered(recorder)
        self._loop = Loop(self._job, recorder, self._origin, self._team)
        recorder.start(on_command=self._wake)
        self._end_on_signals(recorder)
        end = self._train(recorder)
        while end is not None and self._begin_again(end, recorder):
            end = self._train(recorder)
        if end is not None:
            recorder.put(end.event)
        if self._team is not None:
            self._team.close()
        return int(not recorder.close() or end is not None)

    def _train(self, recorder: Recorder) -> _Ended | None:
        """To an end that the loop means; else what it ended with. Nothing of the loop outlives it then."""
        job, loop, team = self._job, self._loop, self._team
        try:
            if team is not None:
                origin = self._origin or Origin()
                team.gather(job, origin.step, origin.values, self._tensors)
                self._tensors = {}  # as large as the model and what the optimizer remembers
            began = self._started()
            recorder.put(began)
            for note in self._loop.choice.notes if isinstance(began, Continued) else ():
                recorder.put(note)
            gc.collect()
            gc.freeze()  # what exists now stays; later collections need not look at it
            with self._telemetry(recorder):
                finished = self._weighed(loop.run())
            if team is not None:
                team.end()
            recorder.put(finished)
        except BaseException as error:
            loop.rescue()
            retry = job.spec.oom_retry and team is None and is_out_of_memory(error)
            return _Ended(self._failure(error, loop.step), smaller(job.spec, job.plan.rows) if retry else None)
        return None

    def _begin_again(self, end: _Ended, recorder: Recorder) -> bool:
        """After out of memory: the same steps in smaller batches, from the last checkpoint. False if that cannot be."""
        before, workload = self._job.spec, None if self._job.spec.task else self._job.workload
        if end.smaller is None or not recorder.begin_again(end.smaller):
            return False
        self._why = f"out of memory with batches of {batch_words(before)}; now {batch_words(end.smaller)}"
        del self._job, self._loop
        gc.unfreeze()
        release(torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))
        try:
            left = left_of(self.path)
            spec = msgspec.structs.replace(end.smaller, threads=left.spec.threads)
            workload = workload or load_workload(spec)  # the model of a task is trained already
            # what fits is found by trying, so that no estimate is asked
            self._job = build(spec, workload, make_plan(spec, workload, choose_device(spec.device)), checked=False)
            self._origin = left.restore(self._job)
            self._loop = Loop(self._job, recorder, self._origin)
        except Exception as error:
            message = f"{end.event.message}; smaller batches could not be tried: {explain(error)[0]}"
            end.event = msgspec.structs.replace(end.event, message=message)
            return False
        return True

    def _wake(self) -> None:
        loop: Loop | None = getattr(self, "_loop", None)
        if loop is not None:  # between two loops the next one looks at its commands by itself
            loop.wake()

    @contextlib.contextmanager
    def _telemetry(self, recorder: Recorder) -> Iterator[None]:
        telemetry = Telemetry(recorder.put, inventory.uuid(self._job.device))
        telemetry.start()
        try:
            yield
        finally:
            telemetry.close()

    def _weighed(self, end: Finished) -> Finished:
        """The summary, with the memory that was planned and the memory that was held."""
        peak = self._footprint.bytes() if self._footprint is not None else None
        planned = self._job.plan.memory_bytes
        return msgspec.structs.replace(end, planned_memory_bytes=planned, peak_memory_bytes=peak)

    def _gathered(self, recorder: Recorder) -> RankGroupLeader | None:
        processes = self._job.spec.processes
        if self._launched is not None:
            return RankGroupLeader(self._launched)
        return RankGroupLeader(LocalLauncher(processes, partial(self._give_up, recorder))) if processes > 1 else None

    def _give_up(self, recorder: Recorder, report: RankFailure) -> None:
        """From another thread: end this process, whose main thread waits for ranks that are gone."""
        recorder.put(report.event(self._loop.step))
        recorder.close()
        os._exit(1)

    def _failure(self, error: BaseException, step: int) -> Failed:
        report = self._team.failed_rank(error) if self._team is not None else None
        return failed(error, step, self._job) if report is None else report.event(step)

    def _write_preparation(self) -> None:
        preparation = self._job.workload.preparation
        if preparation is not None:
            with contextlib.suppress(OSError):  # the recorder tells of a full disk
                writer.write_whole(self.path / paths.PREPARATION, encode(preparation))

    def _end_on_signals(self, recorder: Recorder) -> None:
        def stop(number: int, _frame: object) -> None:
            recorder.commands.put(Stop(by=f"signal {signal.Signals(number).name}"))
            self._wake()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)

    def _started(self) -> Started | Continued:
        job, plan = self._job, self._job.plan
        if self._origin is not None and self._origin.started:
            return Continued(
                time=time.time(),
                step=self._origin.step,
                recorded=len(self._origin.recorded),
                device=str(job.device),
                executor=self._loop.prepare().name,
                why=self._why,
                batch_size=job.spec.batch_size if self._why else None,
                accumulate=job.spec.accumulate if self._why else 1,
            )
        name = torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else inventory.cpu_name()
        return Started(
            time=time.time(),
            device=str(job.device),
            device_name=name,
            executor=self._loop.prepare().name,
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
            notes=(*job.notes, *(note.message for note in self._loop.choice.notes)),
            fallback=self._loop.choice.fallback,
        )
