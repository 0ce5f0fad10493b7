"""`compile`: several complete steps (forward, loss, gradients, update) as one program of torch.compile.

The step is traced once into a flat graph without autograd. Inductor caches compiled programs, so that another run of the
same job starts in seconds instead of a minute.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.execution.inputs import (
    PickedRows,
    Sizes,
    factors_of,
    possible_sizes,
    recordable_rule,
    recorded_update,
    rows_per_step,
    sizes_of,
    untouched,
)
from epochtop.engine.job.job import Job
from epochtop.engine.runs.ownership import private_folder, tree_risk
from epochtop.engine.runs.paths import cache_folder
from epochtop.engine.step.batches import ResidentBatches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.window import LossWindow

SMALL = 10_000_000
"""Multiplications of a step (parameters × rows) below which several steps become one program."""
STEPS = 4
"""Steps of such a program; compiling takes this many times as long."""

BACKEND = "inductor"

Flat = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]
"""Takes steps in place: from state, row numbers (steps, rows) and factors (steps, factors) to losses (steps,)."""


class Compiled(Executor):
    """Compiled steps on the CPU. Which steps share a program depends on their numbers alone."""

    name = "compile"

    def __init__(self, job: Job) -> None:
        """Compiles all programs that the job needs. Raises Unsupported."""
        recordable_rule(job)
        if job.device.type != "cpu":
            raise Unsupported(f"it supports the CPU and CUDA, not {job.device}")
        if job.parts.loss_average is not None or (job.loss_module is not None and job.loss_module.trained):
            raise Unsupported("its loss has trained weights")
        self.note = use_own_cache()
        self._job, self._state, self._steps = job, state(job), steps_per_program(job)
        programs = {(sizes, 1) for sizes in possible_sizes(job)} | {(next(possible_sizes(job)), self._steps)}
        self._programs = {key: compiled(job, self._state, *key) for key in sorted(programs)}

    def run(self, window: LossWindow, step: int, max_steps: int, rate: Rate) -> int:
        job, batches = self._job, self._job.batches
        sizes = sizes_of(batches, job.parts.accumulate)
        count = self._steps_of_program(step, max_steps, sizes)
        rows = torch.empty(count, 0, dtype=torch.int64)
        if isinstance(batches, ResidentBatches):
            rows = batches.upcoming_rows(sizes, count).view(count, -1)
            batches.position += rows.numel()
        factors = factors_of(job, step, count, rate)
        with torch.no_grad():
            losses = self._programs[sizes, count](self._state, rows, factors)
        recordable_rule(job).steps += count
        window.extend(losses)
        return count

    def _steps_of_program(self, step: int, max_steps: int, sizes: Sizes) -> int:
        """A full program's steps if they begin at a multiple of it, else one: the same ones after a kill."""
        batches, first, available = self._job.batches, step, max_steps
        if isinstance(batches, ResidentBatches):
            rows = rows_per_step(self._job)
            first = batches.position // rows
            available = min(max_steps, (batches.rows_per_epoch - batches.position) // rows if sum(sizes) == rows else 1)
        return self._steps if first % self._steps == 0 and available >= self._steps else 1


def steps_per_program(job: Job) -> int:
    """Steps that are compiled together; a property of the job, not of the moment."""
    return STEPS if job.plan.parameters * rows_per_step(job) <= SMALL else 1


def state(job: Job) -> list[Tensor]:
    """All tensors that a step reads or changes: parameters, buffers, optimizer state, average."""
    frozen = [weight.detach() for weight in job.model.parameters() if not weight.requires_grad]
    average = list(job.average.tensors.values()) if job.average else []
    return [*recordable_rule(job).tensors(), *frozen, *job.model.buffers(), *average]


def compiled(job: Job, state: Sequence[Tensor], sizes: Sizes, steps: int) -> Flat:
    """The program of `steps` steps with batches of these sizes. Raises Unsupported."""
    rows = torch.zeros(steps, sum(sizes), dtype=torch.int64, device=job.device)
    factors = torch.ones(steps, len(recordable_rule(job).factors(1.0, 0)), device=job.device)
    try:
        with untouched(job):
            graph = _traced(job, state, sizes, steps)(list(state), rows, factors)
            program: Flat = torch.compile(graph, fullgraph=True, backend=BACKEND)
            with torch.no_grad():
                program(state, rows, factors)  # compiles; the step is undone
    except Exception as error:
        raise Unsupported(f"torch.compile does not support it: {_first_line(error)}") from error
    return program


def _traced(job: Job, state: Sequence[Tensor], sizes: Sizes, steps: int) -> Callable[..., Any]:
    from torch.fx.experimental.proxy_tensor import make_fx

    def many(tensors: Sequence[Tensor], rows: Tensor, factors: Tensor) -> Tensor:
        replacements = dict(zip(map(_place, state), tensors, strict=True))
        losses = [_one_step(job, replacements, rows[step], sizes, factors[step].unbind()) for step in range(steps)]
        return torch.stack(losses)

    return make_fx(many)


def _place(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor is stored; the same for its aliases."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def _one_step(
    job: Job, replacements: dict[tuple[int, int], Tensor], rows: Tensor, sizes: Sizes, factors: Sequence[Tensor]
) -> Tensor:
    """The loss of a step on other tensors than the job's: `replacements`, by the place of the job's tensors."""

    def swap(tensor: Tensor) -> Tensor:
        return replacements[_place(tensor)]

    update = recordable_rule(job).on(swap)
    leaves = [tensor.detach().requires_grad_() for tensor in update.parameters]
    weights = _by_name(job.model, leaves, swap)
    parts = replace(
        job.parts,
        model=_WithWeights(job.model, weights),
        batches=PickedRows(job.batches, rows, sizes) if isinstance(job.batches, ResidentBatches) else job.batches,
        parameters=leaves,
        update=recorded_update(update, factors),
        average=job.average.on(swap) if job.average else None,
    )
    return make_step(parts)()


def _by_name(model: nn.Module, leaves: Sequence[Tensor], swap: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return dict(zip(trained, leaves, strict=True)) | {name: swap(buffer) for name, buffer in model.named_buffers()}


class _WithWeights(nn.Module):
    """A model called with other weights."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._models, self._weights = [model], weights  # in a list, so that it is not a submodule

    def forward(self, x: Any) -> Any:
        return torch.func.functional_call(self._models[0], self._weights, (x,))


class CompiledSteps:
    """Compiled steps to be captured in a CUDA graph: one program for every number of rows of a step."""

    def __init__(self, job: Job) -> None:
        """Raises Unsupported."""
        recordable_rule(job)
        self.note = use_own_cache()
        self._state = state(job)
        self._programs: dict[Sizes, Flat] = {}

    def __call__(self, job: Job, rows: Tensor, sizes: Sizes, factors: Sequence[Tensor], rate: Tensor) -> Step:
        """The step that reads its row numbers and factors from these tensors. Raises Unsupported."""
        if sizes not in self._programs:
            self._programs[sizes] = compiled(job, self._state, sizes, 1)
        program, state, step_factors = self._programs[sizes], self._state, tuple(factors)

        def step() -> Tensor:
            with torch.no_grad():
                return program(state, rows.unsqueeze(0), torch.stack(step_factors).unsqueeze(0))[0]

        return step


def use_own_cache() -> str:
    """Make Inductor cache in epochtop's cache folder, unless the user has set another, and compile without messages.

    Returns a note if another user could have written programs there, so that a private folder is used; else empty.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    name = "TORCHINDUCTOR_CACHE_DIR"
    if os.environ.get(name, default_cache_dir()) == default_cache_dir():  # torch sets the variable to its default
        os.environ[name] = str(cache_folder() / "compile")
    risk = tree_risk(Path(os.environ[name]))
    cache = private_folder("compile", risk) if risk is not None else None
    if cache is not None:
        os.environ[name] = str(cache.path)
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    return cache.note if cache is not None else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
