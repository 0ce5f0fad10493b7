"""An error in a step or an evaluation of a running task, explained like one of its trial.

The batch is still in the frames of the traceback, so that steps need not remember it. Never called while a run trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from epochtop.engine.models.checked_rows import RowError
from epochtop.engine.models.nested import mapped, tensors_of
from epochtop.engine.tasks.errors.tracebacks import TaskError, explain_user_error, user_line
from epochtop.engine.tasks.task import Task
from epochtop.engine.tasks.trial import Trial, check_gradient

STEP_MODULES = "epochtop.engine.step."
"""Modules whose frames hold a batch as `x` and `y`."""


def explain(error: BaseException, task: Task, file: Path, function: Callable[[], Any] | None) -> str:
    """The error in one line: the user's line, and what is wrong. Repeats the step on the host's data, but changes nothing."""
    batch = None if isinstance(error, RowError) else _batch(error)
    if batch is None:
        return explain_user_error(error, file, (function,))
    trial = Trial(task, batch.x, batch.y)
    problem = error
    with task.untouched(torch.device("cpu")):
        task.model.train(not batch.evaluated)
        try:
            with torch.enable_grad():
                output, loss = trial.loss()
                if not batch.evaluated:
                    check_gradient(loss)
            trial.metrics(mapped(output, torch.Tensor.detach))
        except Exception as repeated:
            problem = repeated if isinstance(repeated, TaskError) else error
        return trial.explain(problem, file, function, user_line(error, file))


@dataclass(frozen=True)
class _FailedBatch:
    x: Any
    y: Any
    evaluated: bool
    """Whether it was a batch of an evaluation."""


def _batch(error: BaseException) -> _FailedBatch | None:
    """The batch in the innermost frame of a step that has one on the host; None if there is none."""
    batch = None
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        module, values = frame.f_globals.get("__name__", ""), frame.f_locals
        if module.startswith(STEP_MODULES):
            one: Any = values.get("batch")  # of several in a step
            if {"x", "y"} <= values.keys():
                batch = _FailedBatch(values["x"], values["y"], module == f"{STEP_MODULES}evaluation")
            elif hasattr(one, "x") and hasattr(one, "y"):
                batch = _FailedBatch(one.x, one.y, evaluated=False)
        trace = trace.tb_next
    on_host = batch is not None and all(not tensor.is_cuda for tensor in tensors_of((batch.x, batch.y)))
    return batch if on_host else None
