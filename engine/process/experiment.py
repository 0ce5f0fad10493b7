"""One experiment in the engine's process: measure, record every row, conclude, whatever happens.

An experiment has a run directory like any run: viewers come and go, a broken connection loses nothing, and Stop keeps
the rows so far.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Literal

import msgspec
import torch

from epochtop.engine.device.inventory import cpu_name, torch_inventory
from epochtop.engine.device.select import choose_device
from epochtop.engine.hardware import usable_cpus, usable_memory_bytes
from epochtop.engine.job.failures import failed
from epochtop.engine.lab.catalog import find
from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Stopped
from epochtop.engine.lab.experiments import measurement_of
from epochtop.engine.lab.measurements import Measurement, stored
from epochtop.engine.lab.repetitions import with_earlier
from epochtop.engine.process import daemon
from epochtop.engine.process.earlier_results import earlier_verdicts
from epochtop.engine.protocol.commands import AnyCommand, Stop
from epochtop.engine.protocol.events import PHASE, Concluded, Failed, Measured, Noted, Prepared
from epochtop.engine.protocol.experiments import Cell, ExperimentRequest
from epochtop.engine.protocol.fields import parse, with_setting
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.terminal.output import write_log
from epochtop.engine.training.recorder import Recorder

BUDGET_S, QUICK_S = 45.0, 5.0
"""Time for an experiment, so that it ends within 60 s, or within 10 s if it is quick."""


def make_experiment(request: ExperimentRequest, spec: RunSpec, folder: Path) -> tuple[Experiment, ExperimentContext]:
    """The requested experiment and its context. Raises Invalid."""
    experiment = find(request.name)
    values = {name: parse(name, text, experiment.fields) for name, text in request.fields.items()}
    fields = msgspec.convert(values, experiment.fields)
    check(spec)
    devices, limits = reachable_devices(spec.device)
    if experiment.job is not None and spec.processes > 1 and not experiment.several_processes:
        limits.append(f"measured with 1 process, not with {spec.processes}")
    context = ExperimentContext(
        fields=fields,
        spec=spec,
        devices=devices,
        budget_s=QUICK_S if request.quick else BUDGET_S,
        folder=folder,
        quick=request.quick,
        cannot_see=limits,
    )
    return experiment, context


def reachable_devices(device: str) -> tuple[tuple[str, ...], list[str]]:
    """The devices to measure on if the spec's device is `device` (`auto`: all kinds), and what that leaves unmeasured."""
    best = choose_device(device)
    if device != "auto":
        return (str(best),), [f"everything was measured on {best} alone, as asked"]
    if best.type != "cpu":
        return ("cpu", str(best)), []
    why = torch_inventory().cuda_reason or f"torch {torch.__version__} is built without CUDA"
    return ("cpu",), [f"nothing could be measured on a GPU: {why}"]


class ExperimentRun:
    """One experiment with its run directory."""

    def __init__(self, experiment: Experiment, context: ExperimentContext, path: Path, lock: IO[bytes]) -> None:
        """`lock` is the run directory's lock, which this object keeps open."""
        self._experiment, self._context, self.path, self._lock = experiment, context, path, lock
        self._rows: list[Measurement] = []
        self._commands: SimpleQueue[AnyCommand] = SimpleQueue()  # the recorder's, once there is one

    def serve(self) -> int:
        """Measure to the end, whatever the end is. Returns the exit status: 1 if it failed."""
        return daemon.serve(self, self.path, self._context.spec)

    # --- as the daemon's work ----------------------------------------------------------------------------

    def run(self, recorder: Recorder) -> Concluded | Failed:
        """Measure and conclude; returns the last event."""
        context = self._context
        context.note = lambda message: recorder.put(Noted(message=message, code=PHASE))
        context.start = time.perf_counter()
        self._commands = recorder.commands
        self.wake()
        daemon.freeze_heap()
        try:
            prepared = _prepared(context)
            recorder.put(prepared)
            return self._concluded(self._measure(recorder), prepared)
        except BaseException as error:
            event = failed(error, len(self._rows))
            with contextlib.suppress(OSError):  # output.log may be on a full disk
                write_log(event.traceback)
            return event

    def wake(self) -> None:
        """Look for Stop, the only command that an experiment obeys."""
        with contextlib.suppress(Empty):  # two threads may read the queue
            while True:
                if isinstance(self._commands.get_nowait(), Stop):
                    self._context.stop.set()

    def close(self) -> None:
        """Nothing is left behind: experiments end their processes themselves."""

    # --- measuring ---------------------------------------------------------------------------------------

    def _measure(self, recorder: Recorder) -> Literal["finished", "stopped"]:
        try:
            for row in measurement_of(self._experiment.name)(self._context):
                self._rows.append(row)
                recorder.put(Measured(values=stored(row)))
        except Stopped:
            return "stopped"
        return "finished"

    def _concluded(self, outcome: Literal["finished", "stopped"], prepared: Prepared) -> Concluded:
        context = self._context
        verdict = self._experiment.conclude(Findings(self._rows, context.fields, context.spec, context.devices))
        verdict = with_earlier(verdict, earlier_verdicts(self.path, self._experiment, prepared))
        if self._experiment.job is not None:
            verdict = msgspec.structs.replace(verdict, setting=effective_setting(verdict.setting, context.spec))
        return Concluded(
            time=time.time(),
            seconds=time.perf_counter() - context.start,
            outcome=outcome,
            verdict=verdict,
            cannot_see=tuple(context.cannot_see),
        )


def _prepared(context: ExperimentContext) -> Prepared:
    return Prepared(
        time=time.time(),
        budget_s=context.budget_s,
        devices=context.devices,
        machine=machine(context.devices),
        cannot_see=tuple(context.cannot_see),
    )


def effective_setting(setting: Mapping[str, str], spec: RunSpec) -> dict[str, str]:
    """The fields of a setting to try that change the job of `spec`; none if the job cannot have the setting."""
    try:
        changed = with_setting(spec, setting)
        same_device = choose_device(changed.device) == choose_device(spec.device)
    except Invalid:
        return {}
    return {
        name: value
        for name, value in setting.items()
        if getattr(changed, name) != getattr(spec, name) and not (name == "device" and same_device)
    }


def machine(devices: tuple[str, ...]) -> dict[str, Cell]:
    """Facts about this machine, so that the figures can be read on another one."""
    facts: dict[str, Cell] = {
        "host": platform.node(),
        "cpu": cpu_name(),
        "usable_cpus": usable_cpus(),
        "memory_bytes": usable_memory_bytes(),
        "load": round(os.getloadavg()[0], 2),
        "os": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "gpu": None,
    }
    for name in devices:
        if name.startswith("cuda"):
            properties = torch.cuda.get_device_properties(name)
            facts |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return facts
