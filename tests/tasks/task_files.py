"""Task files for tests, and the plain loop that trains the same task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.tasks.loader import load_task
from epochtop.engine.tasks.task import Task

START = """
import torch
from torch import nn
from torch.nn import functional as F
from epochtop import Task

g = torch.Generator().manual_seed(0)
X, Y = torch.randn(65, 4, generator=g), torch.arange(65) % 3

"""


def task_file(folder: Path, body: str) -> str:
    """A task file with the start above and this body, as a value of `task`; its function is `make_task`."""
    file = folder / "task_file.py"
    file.write_text(START + dedent(body))
    return f"{file}:make_task"


def task_spec(task: str, **fields: object) -> RunSpec:
    """A short run of a task on one thread, with eager steps and timed evaluations in between."""
    defaults = {
        "task": task,
        "epochs": 6,
        "batch_size": 16,
        "learning_rate": 0.1,
        "threads": 1,
        "device": "cpu",
        "executor": "eager",
        "refresh_ms": 10,
        "eval_every": 0.01,
        "seed": 5,
    }
    return RunSpec(**(defaults | fields))  # type: ignore[arg-type]


def plain_task(
    spec: RunSpec,
    optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer],
    rows: int | None = None,
    hook: Callable[[Task], object] = lambda task: None,
) -> tuple[npt.NDArray[np.float32], Task]:
    """The losses of `loss.backward()` and `optimizer.step()` over the same batches, and the trained task.

    The optimizer gets the parameters of the model and of the loss. Only the first `rows` rows of an epoch's order are used.
    """
    torch.manual_seed(spec.seed)
    task = load_task(spec.task)
    torch.manual_seed(spec.seed)
    hook(task)
    modules: list[Any] = [task.model, *([task.loss] if isinstance(task.loss, nn.Module) else [])]
    update = optimizer([weight for module in modules for weight in module.parameters()])
    x, y = task.train  # type: ignore[misc]
    generator = torch.Generator().manual_seed(spec.seed)
    losses = []
    for _ in range(spec.epochs):
        batches = [torch.arange(len(x))]
        if spec.batch_size and spec.batch_size < len(x):
            order = torch.randperm(len(x), generator=generator)
            batches = list(order[: len(x) if rows is None else rows].split(spec.batch_size))
        for chosen in batches:
            loss = task.loss(task.model(x[chosen].clone()), y[chosen].clone())
            update.zero_grad()
            loss.backward()
            update.step()
            losses.append(loss.item())
    return np.array(losses, dtype=np.float32), task
