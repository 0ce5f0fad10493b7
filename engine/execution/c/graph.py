"""`graph` on the CPU: a step recorded once, translated to C and run without torch's dispatcher, many steps per call.

A step's loss does not depend on the number of steps per call, so that a run continues exactly after a kill.
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
from epochtop.engine.execution.inputs import (
    Sizes,
    factors_of,
    possible_sizes,
    recordable_rule,
    replayable_step,
    sizes_of,
    untouched,
)
from epochtop.engine.job.job import Job
from epochtop.engine.step.batches import ResidentBatches
from epochtop.engine.step.window import LossWindow

CALL_S = 0.005
"""How long one call may take: commands wait for it."""
MAX_STEPS = 100_000


@dataclass(frozen=True)
class _Function:
    """A built program and its fixed arguments."""

    run: Any
    outside: Any
    room: Tensor
    draws: int

    def __call__(self, steps: int, factors: Tensor, rows: Tensor | None, losses: Tensor) -> None:
        seeds = None
        if self.draws:  # drawn from the default generator, whose state is in every checkpoint
            seeds = torch.randint(-(2**63), 2**63 - 1, (steps,))
        addresses = [_address(tensor) for tensor in (self.room, factors, rows, seeds, losses)]
        self.run(steps, self.outside, *addresses)


class CGraph(Executor):
    """Steps in C, one program for every number of rows of a step. :meth:`build` must be called before the first step."""

    name = "graph"

    def __init__(self, job: Job) -> None:
        """Records a step and translates it, in some milliseconds. Raises Unsupported."""
        self._job, self._update = job, recordable_rule(job)
        _check_labels(job)
        if job.device.type != "cpu":
            raise Unsupported(f"programs in C run on the CPU, not on {job.device}")
        self._programs = {sizes: translated(job, sizes) for sizes in possible_sizes(job)}
        self._functions: dict[Sizes, _Function] = {}
        self._chunk = 1

    @property
    def calls(self) -> int:
        """Operators of a step."""
        return max(program.calls for program in self._programs.values())

    def build(self) -> None:
        """Compile the programs; cached ones take no time. Raises Unsupported."""
        self._functions = {sizes: _function(program) for sizes, program in self._programs.items()}
        self.note = build.folder().note

    def run(self, window: LossWindow, step: int, max_steps: int, rate: Rate) -> int:
        job, batches = self._job, self._job.batches
        sizes = sizes_of(batches, job.parts.accumulate)
        max_steps = min(max_steps, self._chunk)
        rows = batches.upcoming_rows(sizes, max_steps) if isinstance(batches, ResidentBatches) else None
        count = max_steps if rows is None else len(rows) // sum(sizes)
        losses = torch.empty(count)
        started_at = perf_counter()
        factors = factors_of(job, step, count, rate)
        self._functions[sizes](count, factors, rows, losses)
        self._pace(count, perf_counter() - started_at)
        if rows is not None:
            batches.position += len(rows)
        self._update.steps += count
        window.extend(losses)
        return count

    def _pace(self, count: int, seconds: float) -> None:
        """Adapt the steps per call to `CALL_S`. Grows at most fourfold, because first steps are not typical."""
        fitting = int(count * CALL_S / max(seconds, 1e-9))
        self._chunk = max(1, min(fitting, 4 * count, MAX_STEPS))


def _check_labels(job: Job) -> None:
    """Refuse labels that are not classes: torch raises an error for them, C code would access foreign memory."""
    train = job.workload.train
    if job.spec.task and isinstance(train, Rows) and train.y.dtype.kind in "iu" and train.y.size:
        low, high = int(train.y.min()), int(train.y.max())
        if low < 0 or high >= job.plan.outputs:
            raise Unsupported(f"its labels are {low} to {high}, but it has {job.plan.outputs} outputs")


def translated(job: Job, sizes: Sizes) -> Program:
    """The program of a step with batches of these sizes. Raises Unsupported."""
    rows = torch.zeros(sum(sizes), dtype=torch.int64)
    factors = torch.ones(len(recordable_rule(job).factors(1.0, 0)))
    with untouched(job):
        tape = record(replayable_step(job, rows, sizes, tuple(factors.unbind())))
    inputs = {tensor.untyped_storage()._cdata: name for name, tensor in (("factors", factors), ("rows", rows))}
    counts = {"factors": len(factors), "rows": len(rows)}
    advancing = {
        number: Advancing(name, counts[name])
        for number, outside in tape.outside.items()
        if (name := inputs.get(outside.untyped_storage()._cdata))
    }
    return program(tape, advancing, OPERATORS)


def _function(program: Program) -> _Function:
    run = build.load(program.source())
    run.restype = None
    run.argtypes = [ctypes.c_long, *(ctypes.c_void_p,) * 6]
    addresses = [tensor.untyped_storage().data_ptr() for tensor in program.outside]
    room = torch.zeros(program.room_bytes, dtype=torch.uint8)
    return _Function(run, (ctypes.c_void_p * max(1, len(addresses)))(*addresses), room, program.draws)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
