"""`compile`: several whole steps (forward, loss, gradients, update) as one program of torch.compile.

The step is traced once into a flat graph without autograd. What is compiled is kept by Inductor, so that another
run of the same job starts in seconds instead of a minute.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from epochtop.engine.data.downloads.cache import cache_folder
from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.execution.inputs import (
    PickedRows,
    Sizes,
    factors_of,
    kinds,
    lean,
    rows_a_step,
    sizes_of,
    untouched,
)
from epochtop.engine.job.job import Job
from epochtop.engine.step.batches import ResidentBatches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.window import LossWindow

SMALL = 10_000_000
"""Multiplications of a step (parameters × rows) below which several steps are worth one program."""
STEPS = 4
"""Steps of such a program. Compiling takes that much longer."""

BACKEND = "inductor"

Flat = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]
"""Takes steps in place: state, row numbers (steps, rows), factors (steps, factors) to losses (steps,)."""


class Compiled(Executor):
    """Compiled steps on the CPU. Which steps are taken together depends on their numbers alone."""

    name = "compile"

    def __init__(self, job: Job) -> None:
        """Compiles everything that will be needed. Raises Unfit."""
        lean(job)
        use_own_cache()
        self._job, self._state, self._steps = job, state(job), steps_a_program(job)
        wanted = {(sizes, 1) for sizes in kinds(job)} | {(next(kinds(job)), self._steps)}
        self._programs = {each: compiled(job, self._state, *each) for each in sorted(wanted)}

    def take(self, window: LossWindow, step: int, most: int, rate: Rate) -> int:
        job, batches = self._job, self._job.batches
        sizes = sizes_of(batches, job.parts.accumulate)
        count = self._together(step, most, sizes)
        rows = torch.empty(count, 0, dtype=torch.int64)
        if isinstance(batches, ResidentBatches):
            rows = batches.ahead(sizes, count).view(count, -1)
            batches.position += rows.numel()
        factors = factors_of(job, step, count, rate)
        with torch.no_grad():
            losses = self._programs[sizes, count](self._state, rows, factors)
        lean(job).steps += count
        window.extend(losses)
        return count

    def _together(self, step: int, most: int, sizes: Sizes) -> int:
        """All steps of a program where they begin at a multiple of it, else one: the same ones after a kill."""
        batches, begun = self._job.batches, step
        left = most
        if isinstance(batches, ResidentBatches):
            each = rows_a_step(self._job)
            begun = batches.position // each
            left = min(most, (len(batches.x) - batches.position) // each if sum(sizes) == each else 1)
        return self._steps if begun % self._steps == 0 and left >= self._steps else 1


def steps_a_program(job: Job) -> int:
    """Steps that are compiled together; a property of the job, not of the moment."""
    return STEPS if job.plan.parameters * rows_a_step(job) <= SMALL else 1


def state(job: Job) -> list[Tensor]:
    """All tensors that a step changes: parameters, buffers, the update's memory, the average."""
    frozen = [weight.detach() for weight in job.model.parameters() if not weight.requires_grad]
    average = list(job.average.tensors.values()) if job.average else []
    return [*lean(job).tensors(), *frozen, *job.model.buffers(), *average]


def compiled(job: Job, held: Sequence[Tensor], sizes: Sizes, steps: int) -> Flat:
    """The program of so many steps that take batches of these sizes. Raises Unfit."""
    rows = torch.zeros(steps, sum(sizes), dtype=torch.int64, device=job.device)
    factors = torch.ones(steps, len(lean(job).factors(1.0, 0)), device=job.device)
    try:
        with untouched(job):
            graph = _traced(job, held, sizes, steps)(list(held), rows, factors)
            program: Flat = torch.compile(graph, fullgraph=True, backend=BACKEND)
            with torch.no_grad():
                program(held, rows, factors)  # compiled now, by a step that is undone
    except Exception as error:
        raise Unsupported(f"torch.compile does not take it: {_first_line(error)}") from error
    return program


def _traced(job: Job, held: Sequence[Tensor], sizes: Sizes, steps: int) -> Callable[..., Any]:
    from torch.fx.experimental.proxy_tensor import make_fx

    def many(tensors: Sequence[Tensor], rows: Tensor, factors: Tensor) -> Tensor:
        given = dict(zip(map(_place, held), tensors, strict=True))
        return torch.stack([_one(job, given, rows[step], sizes, factors[step].unbind()) for step in range(steps)])

    return make_fx(many)


def _place(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor lies: aliases of it lie there too."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def _one(
    job: Job, given: dict[tuple[int, int], Tensor], rows: Tensor, sizes: Sizes, factors: Sequence[Tensor]
) -> Tensor:
    """A step on other tensors than the job's own: `given` has them by the place of those."""

    def swap(tensor: Tensor) -> Tensor:
        return given[_place(tensor)]

    update = lean(job).on(swap)
    leaves = [tensor.detach().requires_grad_() for tensor in update.parameters]
    weights = _by_name(job.model, leaves, swap)
    parts = replace(
        job.parts,
        model=_Called(job.model, weights),
        batches=PickedRows(job.batches, rows, sizes) if isinstance(job.batches, ResidentBatches) else job.batches,
        parameters=leaves,
        update=lambda gradients: update.apply(gradients, factors),
        average=job.average.on(swap) if job.average else None,
    )
    return make_step(parts)()


def _by_name(model: nn.Module, leaves: Sequence[Tensor], swap: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return dict(zip(trained, leaves, strict=True)) | {name: swap(buffer) for name, buffer in model.named_buffers()}


class _Called(nn.Module):
    """A model called with other weights."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._called, self._weights = [model], weights  # in a list, so that it is no part of this one

    def forward(self, x: Any) -> Any:
        return torch.func.functional_call(self._called[0], self._weights, (x,))


class CompiledSteps:
    """Compiled steps to be captured, from one program for each number of rows that a step can take."""

    def __init__(self, job: Job) -> None:
        """Raises Unfit."""
        lean(job)
        use_own_cache()
        self._state = state(job)
        self._programs: dict[Sizes, Flat] = {}

    def __call__(self, job: Job, rows: Tensor, sizes: Sizes, factors: Sequence[Tensor], rate: Tensor) -> Step:
        """The step for the rows and factors that these tensors hold when it is taken. Raises Unfit."""
        if sizes not in self._programs:
            self._programs[sizes] = compiled(job, self._state, sizes, 1)
        program, held, each = self._programs[sizes], self._state, tuple(factors)

        def step() -> Tensor:
            with torch.no_grad():
                return program(held, rows.unsqueeze(0), torch.stack(each).unsqueeze(0))[0]

        return step


def use_own_cache() -> None:
    """Keep what Inductor makes in epochtop's cache folder, unless the user says where; and let it compile quietly."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    name = "TORCHINDUCTOR_CACHE_DIR"
    if os.environ.get(name, default_cache_dir()) == default_cache_dir():  # torch writes its own choice there
        os.environ[name] = str(cache_folder() / "compile")
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
