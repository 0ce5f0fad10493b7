"""`graph` on the CPU: a step recorded once, written in C and run without torch's dispatcher, many steps a call.

A step's losses do not depend on how many are taken in one call, so that a run goes on exactly after a kill.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.data.dataset import Rows
from epochtop.engine.execution.c import build
from epochtop.engine.execution.c.program import Advancing, Program, program
from epochtop.engine.execution.c.reductions import OPERATORS
from epochtop.engine.execution.c.tape import record
from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.execution.inputs import Sizes, factors_of, kinds, lean, live_step, sizes_of, untouched
from epochtop.engine.job.job import Job
from epochtop.engine.step.batches import ResidentBatches
from epochtop.engine.step.window import LossWindow

CALL_S = 0.005
"""How long one call may last: commands wait for it."""
MOST_STEPS = 100_000


@dataclass(frozen=True)
class _Function:
    """A built program and what it is called with."""

    run: Any
    outside: Any
    room: Tensor
    draws: int

    def __call__(self, steps: int, factors: Tensor, rows: Tensor | None, losses: Tensor) -> None:
        seeds = None
        if self.draws:  # from the generator that dropout draws from, so that a checkpoint holds where it is
            seeds = torch.randint(-(2**63), 2**63 - 1, (steps,))
        places = [_address(tensor) for tensor in (self.room, factors, rows, seeds, losses)]
        self.run(steps, self.outside, *places)


class CGraph(Executor):
    """Steps in C, one program for each number of rows that a step can take. To be built before the first step."""

    name = "graph"

    def __init__(self, job: Job) -> None:
        """Records a step and writes it down, in some milliseconds. Raises Unfit."""
        self._job, self._update = job, lean(job)
        _check_labels(job)
        if job.device.type != "cpu":
            raise Unsupported(f"programs in C run on the CPU, not on {job.device}")
        self._programs = {sizes: written(job, sizes) for sizes in kinds(job)}
        self._functions: dict[Sizes, _Function] = {}
        self._chunk = 1

    @property
    def calls(self) -> int:
        """Operators of a step."""
        return max(each.calls for each in self._programs.values())

    def build(self) -> None:
        """Let the compiler make functions of the programs; those that are kept already take no time. Raises Unfit."""
        self._functions = {sizes: _function(each) for sizes, each in self._programs.items()}

    def take(self, window: LossWindow, step: int, most: int, rate: Rate) -> int:
        job, batches = self._job, self._job.batches
        sizes = sizes_of(batches, job.parts.accumulate)
        most = min(most, self._chunk)
        rows = batches.ahead(sizes, most) if isinstance(batches, ResidentBatches) else None
        count = most if rows is None else len(rows) // sum(sizes)
        losses = torch.empty(count)
        begun = perf_counter()
        factors = factors_of(job, step, count, rate)
        self._functions[sizes](count, factors, rows, losses)
        self._pace(count, perf_counter() - begun)
        if rows is not None:
            batches.position += len(rows)
        self._update.steps += count
        window.extend(losses)
        return count

    def _pace(self, count: int, seconds: float) -> None:
        """As many steps a call as last a few milliseconds; grows fourfold at most, since the first ones tell little."""
        fitting = int(count * CALL_S / max(seconds, 1e-9))
        self._chunk = max(1, min(fitting, 4 * count, MOST_STEPS))


def _check_labels(job: Job) -> None:
    """What torch would refuse with an error is memory of somebody else's in C."""
    train = job.workload.train
    if job.spec.task and isinstance(train, Rows) and train.y.dtype.kind in "iu" and train.y.size:
        low, high = int(train.y.min()), int(train.y.max())
        if low < 0 or high >= job.plan.outputs:
            raise Unsupported(f"its labels are {low} to {high}, its outputs {job.plan.outputs}")


def written(job: Job, sizes: Sizes) -> Program:
    """The program of a step that takes batches of these sizes. Raises Unfit."""
    rows = torch.zeros(sum(sizes), dtype=torch.int64)
    factors = torch.ones(len(lean(job).factors(1.0, 0)))
    with untouched(job):
        tape = record(live_step(job, rows, sizes, tuple(factors.unbind())))
    moving = {tensor.untyped_storage()._cdata: name for name, tensor in (("factors", factors), ("rows", rows))}
    counts = {"factors": len(factors), "rows": len(rows)}
    advancing = {
        number: Advancing(name, counts[name])
        for number, outside in tape.outside.items()
        if (name := moving.get(outside.untyped_storage()._cdata))
    }
    return program(tape, advancing, OPERATORS)


def _function(made: Program) -> _Function:
    run = build.load(made.source())
    run.restype = None
    run.argtypes = [ctypes.c_long, *(ctypes.c_void_p,) * 6]
    places = [tensor.untyped_storage().data_ptr() for tensor in made.outside]
    room = torch.zeros(made.room_bytes, dtype=torch.uint8)
    return _Function(run, (ctypes.c_void_p * max(1, len(places)))(*places), room, made.draws)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
