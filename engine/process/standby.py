"""The engine's process: wait as a standby, serve one run, turn every exception into an event.

A standby has imported torch, has said what it found, and reads requests from its standard input; it ends with
it. Once it has a run it belongs to nobody: input closed, output in the run's output.log, its own session.
No CUDA context is created before a run begins.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import torch

from epochtop.engine.data.load import file_of
from epochtop.engine.device import inventory
from epochtop.engine.device.footprint import Footprint, resident_bytes
from epochtop.engine.device.select import choose_device
from epochtop.engine.job.failures import explain
from epochtop.engine.job.job import build
from epochtop.engine.job.plan import describe, resolved
from epochtop.engine.job.workload import Workload, load_workload
from epochtop.engine.process.experiment import Experimenting, prepared
from epochtop.engine.process.run import RUN_SIGNALS, Run
from epochtop.engine.protocol.events import UNREADABLE, encode
from epochtop.engine.protocol.fields import field, fields
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
from epochtop.engine.step.batches import DataShard
from epochtop.engine.training.resume import remains


class Standby:
    """Answers requests until one of them becomes a run."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies
        self._known: dict[tuple[object, ...], Workload] = {}
        self._base_bytes = 0

    def serve(self) -> int:
        """Until the requests end or a run has ended; returns the exit status."""
        self._reply(inventory.inventory())
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
        except Exception as error:  # whatever it is, the screen must hear of it
            self._reply(refusal(error))

    def _find_batch(self, request: FindBatch) -> None:
        from epochtop.engine.job.batch_size_finder import find

        try:
            check(request.spec)
            spec = resolved(request.spec)
            self._reply(find(spec, self._take(spec), request.margin))
        except Exception as error:
            self._reply(refusal(error))

    def _start(self, request: Begin | Continue | Measure) -> Run | Experimenting | None:
        try:
            run = self._made(request)
        except Exception as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)
            self._reply(refusal(error))
            return None
        self._reply(Accepted(run=str(run.path)))
        self._requests.close()
        with contextlib.suppress(BrokenPipeError):  # closing tries once more what a viewer that is gone did not take
            self._replies.close()
        return run

    def _made(self, request: Begin | Continue | Measure) -> Run | Experimenting:
        match request:
            case Begin():
                return self._begin(request)
            case Continue():
                return self._continue(request)
            case Measure():
                return self._experiment(request)

    def _experiment(self, request: Measure) -> Experimenting:
        spec, folder = resolved(request.spec), paths.lab_home(Path(request.home))
        experiment, bench = prepared(request.experiment, spec, folder)
        if experiment.job is not None:
            describe(spec, self._load(spec))  # what is wrong with the job is said before a run exists
        signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
        path, lock = writer.create(folder, spec, versions(), time.time(), request.experiment)
        bench.folder = path
        return Experimenting(experiment, bench, path, lock)

    def _begin(self, request: Begin) -> Run:
        check(request.spec)
        spec = resolved(request.spec)
        workload = self._take(spec)
        footprint = self._footprint(spec)
        job = build(spec, workload, describe(spec, workload), DataShard(0, spec.processes))
        # A signal to a run that exists is answered by the run: it waits until the run can hear it.
        signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
        path, lock = writer.create(Path(request.home), spec, versions(), time.time())
        return Run(job, path, lock, footprint=footprint)

    def _continue(self, request: Continue) -> Run:
        path = Path(request.run)
        left = remains(path)
        workload = self._take(left.spec)
        footprint = self._footprint(left.spec)
        job = build(left.spec, workload, describe(left.spec, workload), DataShard(0, left.spec.processes))
        origin = left.restore(job)
        signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
        return Run(job, path, writer.reopen(path), origin, left.tensors, footprint=footprint)

    def _footprint(self, spec: RunSpec) -> Footprint:
        return Footprint(choose_device(spec.device), self._base_bytes)

    def _load(self, spec: RunSpec) -> Workload:
        """What a spec trains, kept for the next request about the same file."""
        key = _data_key(spec)
        if key not in self._known:
            check(spec)
            self._known = {key: load_workload(spec, self._say)}
        return self._known[key]

    def _take(self, spec: RunSpec) -> Workload:
        """What a run trains. A task's model is used by one run only, so it is made anew."""
        if spec.task:
            return load_workload(spec)
        return self._load(spec)

    def _say(self, message: str) -> None:
        self._reply(Progress(message=message))

    def _reply(self, reply: AnyReply) -> None:
        try:
            self._replies.write(encode(reply) + b"\n")
            self._replies.flush()
        except BrokenPipeError:
            pass  # the viewer is gone; a run that was asked for goes on


DATA_FIELDS = (*(about.name for about in fields() if about.group == "data"), "model", "task", "context", "seed")


def _data_key(spec: RunSpec) -> tuple[object, ...]:
    """What the rows of a spec depend on: some fields, and the state of the user's file."""
    file = Path(spec.task.rpartition(":")[0]) if spec.task else file_of(spec)
    state = (file.stat().st_mtime_ns, file.stat().st_size) if file and file.exists() else None
    return (*(getattr(spec, name) for name in DATA_FIELDS), state)


def refusal(error: Exception) -> Refused:
    """The answer to a request that cannot be met."""
    if isinstance(error, Invalid):
        return Refused(message=error.message, field=error.field)
    message, advice = explain(error)
    return Refused(message=f"{message}; {advice}" if advice else message)


def misread(error: Exception) -> Refused:
    """The answer to a line that is no request; a spec with a value out of bounds is told its field."""
    place = re.search(r"\$\.spec\.(\w+)", str(error))
    if place is None:
        return Refused(message=f"not a request: {error}")
    about = field(place[1])
    return Refused(field=about.name, message=f"needs {about.expects}{f' ({about.unit})' if about.unit else ''}")


def warm_up() -> None:
    """Pay once, while nobody waits, for what the first step would pay: imports and the autograd engine."""
    import sklearn.datasets
    import sklearn.model_selection
    import sklearn.preprocessing  # noqa: F401

    weight = torch.ones(4, 4, requires_grad=True)
    torch.autograd.grad(torch.nn.functional.linear(weight, weight).sum(), [weight])


def versions() -> dict[str, str]:
    """Versions that a run was made with."""
    found_versions = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
    for name in ("epochtop", "scikit-learn", "numpy"):
        try:
            found_versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return found_versions


def main() -> int:
    """Entry of `python -m epochtop.engine`."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not end up among the replies
    return Standby(sys.stdin.buffer, replies).serve()
