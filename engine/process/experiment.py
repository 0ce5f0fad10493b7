"""An experiment in the engine's process: measure, write every row, conclude, whatever happens.

It is a run directory like any other: viewers come and go, a lost line loses nothing, Stop keeps the rows so far.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from queue import Empty
from typing import IO, Any

import msgspec
import torch

from epochtop.engine.device import inventory
from epochtop.engine.device.select import choose_device
from epochtop.engine.hardware import usable_cpus, usable_memory_bytes
from epochtop.engine.job.failures import explain
from epochtop.engine.lab.catalog import find
from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Row, Stopped
from epochtop.engine.lab.setting import changing
from epochtop.engine.process.daemon import detach
from epochtop.engine.protocol.codes import PHASE
from epochtop.engine.protocol.events import Concluded, Failed, Measured, Noted, Prepared, Stop
from epochtop.engine.protocol.experiments import Cell, ExperimentRequest
from epochtop.engine.protocol.fields import parse
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.training.recorder import Recorder

BUDGET_S, QUICK_S = 45.0, 3.4
"""What an experiment may take, below the 60 and 10 s that it must end in."""


def prepared(asked: ExperimentRequest, spec: RunSpec, folder: Path) -> tuple[Experiment, ExperimentContext]:
    """The experiment and what it measures with. Raises Invalid."""
    experiment = find(asked.name)
    values = {name: parse(name, text, experiment.fields) for name, text in asked.fields.items()}
    fields = msgspec.convert(values, experiment.fields)
    check(spec)
    seen, cannot_see = reachable(spec.device)
    if experiment.job is not None and spec.processes > 1 and not experiment.crew:
        cannot_see.append(f"measured with 1 process, not with {spec.processes}")
    bench = ExperimentContext(
        fields=fields,
        spec=spec,
        devices=seen,
        budget_s=QUICK_S if asked.quick else BUDGET_S,
        folder=folder,
        quick=asked.quick,
        cannot_see=cannot_see,
    )
    return experiment, bench


def reachable(device: str) -> tuple[tuple[str, ...], list[str]]:
    """The devices to measure on where `device` is asked for (`auto` is all kinds), and what cannot be seen."""
    best = choose_device(device)
    if device != "auto":
        return (str(best),), [f"everything was measured on {best} alone, as asked"]
    if best.type != "cpu":
        return ("cpu", str(best)), []
    why = inventory.inventory().cuda_reason or f"torch {torch.__version__} is built without CUDA"
    return ("cpu",), [f"nothing could be measured on a GPU: {why}"]


class Experimenting:
    """One experiment, from its run directory on. :meth:`serve` as of :class:`epochtop.engine.process.run.Run`."""

    def __init__(self, experiment: Experiment, bench: ExperimentContext, path: Path, lock: IO[bytes]) -> None:
        self._experiment, self._bench, self.path, self._lock = experiment, bench, path, lock
        self._rows: list[Row] = []

    def serve(self) -> int:
        """Measure to the end, whatever the end is. Returns the exit status: 1 if it failed."""
        detach(self.path)
        bench = self._bench
        self._recorder = recorder = Recorder(self.path, bench.spec)
        recorder.start(on_command=self._hear)
        self._hear()
        self._end_on_signals()
        bench.say = lambda message: recorder.put(Noted(message=message, code=PHASE))
        bench.begun = time.perf_counter()
        end = self._measure()
        recorder.put(end)
        return int(not recorder.close() or isinstance(end, Failed))

    def _measure(self) -> Concluded | Failed:
        bench, experiment = self._bench, self._experiment
        outcome: Any = "finished"
        gc.collect()
        gc.freeze()
        try:
            self._recorder.put(
                Prepared(
                    time=time.time(),
                    budget_s=bench.budget_s,
                    devices=bench.devices,
                    machine=machine(bench.devices),
                    cannot_see=tuple(bench.cannot_see),
                )
            )
            try:
                for row in experiment.measure(bench):
                    self._rows.append(row)
                    self._recorder.put(Measured(values=row))
            except Stopped:
                outcome = "stopped"
            verdict = experiment.conclude(Findings(self._rows, bench.fields, bench.spec, bench.devices))
            if experiment.job is not None:
                verdict = msgspec.structs.replace(verdict, setting=changing(verdict.setting, bench.spec))
            return Concluded(
                time=time.time(),
                seconds=time.perf_counter() - bench.begun,
                outcome=outcome,
                verdict=verdict,
                cannot_see=tuple(bench.cannot_see),
            )
        except BaseException as error:
            return self._failed(error)

    def _failed(self, error: BaseException) -> Failed:
        import traceback

        if isinstance(error, Invalid):
            return Failed(time=time.time(), step=len(self._rows), message=str(error))
        message, advice = explain(error)
        told = "".join(traceback.format_exception(error))
        sys.stderr.write(told)
        return Failed(time=time.time(), step=len(self._rows), message=message, advice=advice, traceback=told)

    def _hear(self) -> None:
        """Stop is the only command that an experiment obeys."""
        with contextlib.suppress(Empty):  # heard from two threads, so that what is not empty may be by now
            while True:
                if isinstance(self._recorder.commands.get_nowait(), Stop):
                    self._bench.stop.set()

    def _end_on_signals(self) -> None:
        def stop(_number: int, _frame: object) -> None:
            self._bench.stop.set()

        assert threading.current_thread() is threading.main_thread()
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def machine(seen: tuple[str, ...]) -> dict[str, Cell]:
    """What figures are measured on, for whoever reads them elsewhere."""
    facts: dict[str, Cell] = {
        "host": platform.node(),
        "cpu": inventory.cpu_name(),
        "usable_cpus": usable_cpus(),
        "memory_bytes": usable_memory_bytes(),
        "load": round(os.getloadavg()[0], 2),
        "os": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "gpu": None,
    }
    for name in seen:
        if name.startswith("cuda"):
            properties = torch.cuda.get_device_properties(name)
            facts |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return facts
