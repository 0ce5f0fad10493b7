"""The engine's process: wait as a standby, serve one run, turn every exception into an event.

A standby has imported torch, has said what it found, and reads requests from its standard input; it ends with
it. Once it has a run it belongs to nobody: input closed, output in the run's output.log, its own session.
No CUDA context is created before a run begins.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import msgspec
import torch

from engine import devices, rundir
from engine.data import Split, csv_path
from engine.failures import explain, failed
from engine.job import Job, build, describe, load_checked, resolved
from engine.loop import Loop
from engine.peak import Peak, resident_bytes
from engine.protocol import (
    UNREADABLE,
    Accepted,
    AnyReply,
    Begin,
    Describe,
    Finished,
    Refused,
    Started,
    Stop,
    decode_request,
    encode,
)
from engine.recorder import Recorder
from engine.spec import Invalid, RunSpec, field
from engine.telemetry import Telemetry

RUN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Standby:
    """Answers requests until one of them becomes a run."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies
        self._splits: dict[tuple[object, ...], Split] = {}
        self._base_bytes = 0

    def serve(self) -> int:
        """Until the requests end or a run has ended; returns the exit status."""
        self._reply(devices.found())
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
            else:
                run = self._begin(request)
                if run is not None:
                    return run.serve()
        return 0

    def _describe(self, request: Describe) -> None:
        try:
            self._reply(describe(request.spec, self._load(request.spec)))
        except Exception as error:  # whatever it is, the screen must hear of it
            self._reply(refusal(error))

    def _begin(self, request: Begin) -> Run | None:
        try:
            spec = resolved(request.spec)
            split = self._load(spec)
            peak = Peak(devices.chosen(spec), self._base_bytes)
            job = build(spec, split, describe(spec, split))
            # A signal to a run that exists is answered by the run: it waits until the run can hear it.
            signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
            path, lock = rundir.create(Path(request.home), spec, versions(), time.time())
        except Exception as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)
            self._reply(refusal(error))
            return None
        self._reply(Accepted(run=str(path)))
        self._requests.close()
        with contextlib.suppress(BrokenPipeError):  # closing tries once more what a viewer that is gone did not take
            self._replies.close()
        return Run(job, path, lock, peak)

    def _load(self, spec: RunSpec) -> Split:
        """The rows of a spec, kept for the next request about the same file."""
        path = csv_path(spec)
        state = (path, path.stat().st_mtime_ns, path.stat().st_size) if path and path.exists() else None
        key = (spec.dataset, spec.target, spec.test_fraction, spec.scaling, state)
        if key not in self._splits:
            self._splits = {key: load_checked(spec)}
        return self._splits[key]

    def _reply(self, reply: AnyReply) -> None:
        try:
            self._replies.write(encode(reply) + b"\n")
            self._replies.flush()
        except BrokenPipeError:
            pass  # the viewer is gone; a run that was asked for goes on


class Run:
    """One run in a process of its own."""

    def __init__(self, job: Job, path: Path, lock: IO[bytes], peak: Peak) -> None:
        self._job, self._path, self._lock, self._peak = job, path, lock, peak

    def serve(self) -> int:
        """Train to the end, whatever the end is. Returns the exit status: 1 for a run that failed."""
        self._detach()
        recorder = Recorder(self._path, self._job.spec)
        loop = Loop(self._job, recorder)
        recorder.start(on_command=loop.wake)
        self._end_on_signals(loop, recorder)
        recorder.put(self._started())
        gc.collect()
        gc.freeze()  # what exists now stays; later collections need not look at it
        telemetry = Telemetry(recorder.put, devices.uuid(self._job.device))
        telemetry.start()
        status = 0
        try:
            end = loop.run()
            telemetry.close()
            recorder.put(self._weighed(end))
        except BaseException as error:
            telemetry.close()
            loop.rescue()
            recorder.put(failed(error, loop.step))
            status = 1
        return status if recorder.close() else 1

    def _weighed(self, end: Finished) -> Finished:
        """The summary, with the memory that was planned and the memory that was held."""
        planned, peak = self._job.plan.memory_bytes, self._peak.bytes()
        return msgspec.structs.replace(end, planned_memory_bytes=planned, peak_memory_bytes=peak)

    def _detach(self) -> None:
        """Give the terminal and the viewer's pipes back: input from nowhere, output into the run."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(self._path / rundir.OUTPUT, os.O_WRONLY | os.O_APPEND)
        for descriptor, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, descriptor)
        os.close(nothing)
        os.close(output)

    def _end_on_signals(self, loop: Loop, recorder: Recorder) -> None:
        def stop(number: int, _frame: object) -> None:
            recorder.commands.put(Stop(by=f"signal {signal.Signals(number).name}"))
            loop.wake()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)

    def _started(self) -> Started:
        job, plan = self._job, self._job.plan
        name = torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else devices.cpu_name()
        return Started(
            time=time.time(),
            device=str(job.device),
            device_name=name,
            executor="eager",
            threads=torch.get_num_threads(),
            rows=plan.rows,
            test_rows=plan.test_rows,
            features=plan.features,
            outputs=plan.outputs,
            parameters=plan.parameters,
            steps=plan.steps,
            steps_per_epoch=plan.steps_per_epoch,
            loss=job.split.loss,
            metric=job.split.metric,
            torch_version=str(torch.__version__),
            notes=tuple(job.notes),
        )


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
    """Entry of `python -m engine`."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not end up among the replies
    return Standby(sys.stdin.buffer, replies).serve()
