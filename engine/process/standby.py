"""The engine's process: wait as a standby, then serve one run or experiment.

A standby has imported torch, has reported its inventory, and reads requests from its standard input; it ends when
that closes. Once it has a run, it belongs to no viewer: input closed, output in the run's output.log, its own session.
Must not create a CUDA context before a run begins.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path
from typing import IO

import torch

from epochtop.engine.data.load import files_read
from epochtop.engine.device.footprint import Footprint, resident_bytes
from epochtop.engine.device.inventory import torch_inventory
from epochtop.engine.device.select import choose_device
from epochtop.engine.job.failures import explain
from epochtop.engine.job.plan import describe, resolved
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.workload import Workload, load_workload
from epochtop.engine.process import signals
from epochtop.engine.process.experiment import ExperimentRun, make_experiment
from epochtop.engine.process.run import Run, new_run, resumed_run, versions
from epochtop.engine.protocol.events import UNREADABLE, encode
from epochtop.engine.protocol.fields import field, fields
from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.requests import (
    Accepted,
    AnyReply,
    Begin,
    Continue,
    Describe,
    FindBatch,
    Measure,
    Progress,
    Refused,
    decode_request,
)
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import paths, writer
from epochtop.engine.tasks.sources import enter_working_folder, working_folder
from epochtop.engine.training.resume import resumable_run


class Standby:
    """Answers requests until one of them becomes a run."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies
        self._workloads: dict[tuple[object, ...], Workload] = {}
        self._base_bytes = 0

    def serve(self) -> int:
        """Answer until the requests end or a run has ended; returns the exit status."""
        self._reply(torch_inventory())
        warm_up()
        self._base_bytes = resident_bytes()
        while line := self._requests.readline():
            try:
                request = decode_request(line)
            except UNREADABLE as error:
                self._reply(misread(error))
                continue
            if isinstance(request, Describe):
                self._describe(request)
                continue
            if isinstance(request, FindBatch):
                self._find_batch(request)
                return 0
            run = self._start(request)
            if run is not None:
                return run.serve()
        return 0

    def _describe(self, request: Describe) -> None:
        try:
            self._reply(describe(request.spec, self._load(request.spec)))
        except Exception as error:  # the viewer must get an answer, whatever went wrong
            self._reply(refusal(error))

    def _find_batch(self, request: FindBatch) -> None:
        from epochtop.engine.job.batch_size_finder import find

        try:
            check(request.spec)
            spec = resolved(request.spec)
            self._reply(find(spec, self._unused_workload(spec), request.margin))
        except Exception as error:
            self._reply(refusal(error))

    def _start(self, request: Begin | Continue | Measure) -> Run | ExperimentRun | None:
        try:
            run = self._make(request)
        except Exception as error:
            signals.release()
            self._reply(refusal(error))
            return None
        self._reply(Accepted(run=str(run.path), plan=run.plan if isinstance(run, Run) else None))
        self._requests.close()
        with contextlib.suppress(BrokenPipeError):  # closing writes once more what a viewer that is gone did not read
            self._replies.close()
        return run

    def _make(self, request: Begin | Continue | Measure) -> Run | ExperimentRun:
        match request:
            case Begin():
                return self._begin(request)
            case Continue():
                return self._continue(request)
            case Measure():
                return self._experiment(request)

    def _experiment(self, request: Measure) -> ExperimentRun:
        spec, folder = resolved(request.spec), paths.lab_home(Path(request.home))
        experiment, context = make_experiment(request.experiment, spec, folder)
        if experiment.job is not None:
            describe(spec, self._load(spec))  # reports what is wrong with the job before a run exists
        signals.hold()
        path, lock = writer.create(folder, spec, versions(), time.time(), request.experiment)
        context.folder = path
        return ExperimentRun(experiment, context, path, lock)

    def _begin(self, request: Begin) -> Run:
        check(request.spec)
        spec = resolved(request.spec)
        workload = self._unused_workload(spec)
        footprint = self._footprint(spec)
        return new_run(prepare_job(spec, workload), Path(request.home), footprint=footprint)

    def _continue(self, request: Continue) -> Run:
        path = Path(request.run).absolute()
        recorded = resumable_run(path, request.trusted_owner, request.edited_task)
        with working_folder(recorded.task_record):
            workload = self._unused_workload(recorded.spec, recorded.task_record)
            footprint = self._footprint(recorded.spec)
            run = resumed_run(prepare_job(recorded.spec, workload), recorded, path, footprint=footprint)
        enter_working_folder(recorded.task_record)
        return run

    def _footprint(self, spec: RunSpec) -> Footprint:
        return Footprint(choose_device(spec.device), self._base_bytes)

    def _load(self, spec: RunSpec) -> Workload:
        """The workload of `spec`, cached for the next request about the same file."""
        key = _data_key(spec)
        if key not in self._workloads:
            check(spec)
            self._workloads = {key: load_workload(spec, self._report_progress)}
        return self._workloads[key]

    def _unused_workload(self, spec: RunSpec, task_record: TaskRecord | None = None) -> Workload:
        """A workload for a job. One job only may use a task's model, so a task is loaded again."""
        return load_workload(spec, task_record=task_record) if spec.task else self._load(spec)

    def _report_progress(self, message: str) -> None:
        self._reply(Progress(message=message))

    def _reply(self, reply: AnyReply) -> None:
        try:
            self._replies.write(encode(reply) + b"\n")
            self._replies.flush()
        except BrokenPipeError:
            pass  # the viewer is gone; a run that it started continues


DATA_FIELDS = (*(about.name for about in fields() if about.group == "data"), "model", "task", "context", "seed")


def _data_key(spec: RunSpec) -> tuple[object, ...]:
    """What the rows depend on: some fields of the spec, and size and time of the user's files."""
    states = [(file.stat().st_mtime_ns, file.stat().st_size) for file in _files(spec) if file.exists()]
    return (*(getattr(spec, name) for name in DATA_FIELDS), *states)


def _files(spec: RunSpec) -> list[Path]:
    """The user's files that the rows come from; empty if there are none."""
    if spec.task:
        return [Path(spec.task.rpartition(":")[0])]
    try:
        return files_read(spec)
    except Invalid:
        return []


def refusal(error: Exception) -> Refused:
    """The reply to a request that cannot be fulfilled."""
    if isinstance(error, Invalid):
        return Refused(message=error.message, field=error.field)
    message, advice = explain(error)
    return Refused(message=f"{message}; {advice}" if advice else message)


def misread(error: Exception) -> Refused:
    """The reply to a line that is not a request; it names the field if a value of a spec is out of bounds."""
    place = re.search(r"\$\.spec\.(\w+)", str(error))
    if place is None:
        return Refused(message=f"not a request: {error}")
    about = field(place[1])
    return Refused(field=about.name, message=f"needs {about.expects}{f' ({about.unit})' if about.unit else ''}")


def warm_up() -> None:
    """Import what the first step needs and start the autograd engine, before a viewer waits for it."""
    import sklearn.datasets
    import sklearn.model_selection
    import sklearn.preprocessing  # noqa: F401

    weight = torch.ones(4, 4, requires_grad=True)
    torch.autograd.grad(torch.nn.functional.linear(weight, weight).sum(), [weight])


def main() -> int:
    """Entry of `python -m epochtop.engine`."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not get among the replies
    return Standby(sys.stdin.buffer, replies).serve()
