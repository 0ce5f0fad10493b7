"""The workload of a run: rows, model, loss and metrics, from a dataset or from the user's task.

Built on the host; the job moves it to its device. Never chooses a device or an optimizer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from epochtop.engine.data import load
from epochtop.engine.data.dataset import OnProgress, Preparation, PreparedDataset, Rows, no_progress
from epochtop.engine.device import generators
from epochtop.engine.models import build
from epochtop.engine.models.nested import rows_first, tensors_of
from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.batches import DataShard, FullBatch, move
from epochtop.engine.step.losses import IGNORED, LossWeight, criterion, labeled_cross_entropy, loss_weight
from epochtop.engine.step.metrics import EvalMetrics, Metrics, TaskMetrics
from epochtop.engine.step.step import Criterion
from epochtop.engine.tasks.loader import LoadedTask, load_recorded
from epochtop.engine.tasks.task import Task

Examples = Rows | Dataset[Any]


@dataclass(frozen=True)
class Workload:
    """Everything but the device and the optimizer. If it has a task, only one job can use it."""

    train: Examples
    validation: Examples
    test: Examples
    loss: str
    """Name of the loss."""
    eval_loss: Criterion
    """The loss of held-out rows: without smoothing and class weights."""
    metrics: EvalMetrics
    outputs: int
    """Size of the model's output."""
    shape: tuple[int, ...]
    """Shape of a row."""
    classes: tuple[str, ...]
    """Names of the classes, if there are any."""
    eval_loss_weight: LossWeight | None = None
    """Weight of a batch in the mean held-out loss; None weighs batches by their rows."""
    split: PreparedDataset | None = None
    """The dataset; None for a task."""
    task: Task | None = None
    """The user's task; None for a dataset."""
    task_record: TaskRecord | None = None
    """The code of the task; None for a dataset."""
    notes: tuple[str, ...] = ()
    """Decisions made while the data were prepared, for people."""

    @property
    def preparation(self) -> Preparation | None:
        """How the rows were prepared; None for a task, which prepares its own."""
        return self.split.preparation if self.split else None

    @property
    def problem(self) -> str:
        """What a dataset's labels are: `classification` or `regression`; empty for text and for a task."""
        if self.split is None or self.loss == "next_character":
            return ""
        return "classification" if self.classes else "regression"

    @property
    def bytes(self) -> int:
        """Memory of all rows, without those of a Dataset, whose size is unknown."""
        return sum(part.bytes for part in (self.train, self.validation, self.test) if isinstance(part, Rows))

    def generator_owners(self) -> list[object]:
        """The user's objects whose attributes may be random generators."""
        return self.task.generator_owners() if self.task is not None else []

    def first(self, rows: int, device: torch.device) -> FullBatch:
        """The first `rows` examples (0 for all) as a batch that every step takes, for measuring."""
        if isinstance(self.train, Rows):
            x, y = (torch.from_numpy(array[: rows or None]) for array in (self.train.x, self.train.y))
        else:
            assert self.task is not None
            x, y = self.task.batch(rows or len(self.train))  # type: ignore[arg-type]
        count = min(rows or len(self.train), len(self.train))  # type: ignore[arg-type]
        return FullBatch(move(x, device), move(y, device), count, DataShard())

    def model(self, spec: RunSpec) -> nn.Module:
        """The model of the task, or a new one with weights drawn from the default generator."""
        if self.task is not None:
            return self.task.model
        assert self.split is not None
        return build.build_model(spec, self.split.preparation, self.outputs, self.shape)

    def criterion(self, spec: RunSpec, device: torch.device) -> Criterion:
        """The training loss."""
        if self.task is not None:
            ignores = self.task.loss is functional.cross_entropy and _may_ignore(self.train)
            return labeled_cross_entropy if ignores else self.task.loss
        assert self.split is not None
        weights = torch.tensor(self.split.class_weights, device=device) if self.split.class_weights else None
        return criterion(self.loss, weights, spec.label_smoothing)


def load_workload(
    spec: RunSpec, on_progress: OnProgress = no_progress, task_record: TaskRecord | None = None
) -> Workload:
    """Load the data and the task of `spec`; `on_progress` is called for slow parts. Raises Invalid.

    `task_record` has sources to execute instead of the task's files.
    """
    if spec.task:
        generators.seed(spec.seed)  # the user's function builds the model
        return _of_task(load_recorded(spec.task, task_record))
    split = load.load(spec, on_progress)
    return Workload(
        train=split.train,
        validation=split.validation,
        test=split.test,
        loss=split.preparation.loss,
        eval_loss=criterion(split.preparation.loss),
        metrics=Metrics(split.preparation.loss, split.outputs, split.preparation.target_spread),
        outputs=split.outputs,
        shape=tuple(split.train.x.shape[1:]),
        classes=split.preparation.classes,
        split=split,
        notes=split.notes,
    )


def _of_task(loaded: LoadedTask) -> Workload:
    task = loaded.task
    train = task.examples("train")
    output = _example_output(task)
    custom_loss = task.loss is not functional.cross_entropy
    metrics: EvalMetrics = TaskMetrics(task.metrics)
    if not task.metrics and not custom_loss and output.ndim == 2:
        metrics = Metrics("cross_entropy", output.shape[1], ignore_index=IGNORED)
    return Workload(
        train=train,
        validation=task.examples("validation"),
        test=task.examples("test"),
        loss=_name(task.loss),
        eval_loss=task.loss,
        eval_loss_weight=loss_weight(task.loss),
        metrics=metrics,
        outputs=output.shape[-1] if output.ndim > 1 else 1,
        shape=tuple(train.x.shape[1:]) if isinstance(train, Rows) else _shape(task),
        classes=tuple(task.classes),
        task=task,
        task_record=loaded.record,
    )


def _example_output(task: Task) -> Tensor:
    """The output of a copy of the model for two rows; an empty tensor if it returns no tensor.

    Of a nested output, the first tensor with a row per row of the batch, else the first.
    """
    rows = min(2, len(task.examples("train")))  # type: ignore[arg-type]
    owners = task.generator_owners()
    with generators.forked(torch.device("cpu"), owners), torch.random.fork_rng(), torch.no_grad():
        output = copy.deepcopy(task.model).eval()(task.batch(rows)[0])
    by_row = rows_first(output, rows)
    return next(tensors_of(output), torch.empty(0)) if by_row is None else by_row


def _may_ignore(train: Examples) -> bool:
    """Whether some labels may be ignored; the labels of a Dataset are unknown."""
    return not isinstance(train, Rows) or bool((train.y == IGNORED).any())


def _shape(task: Task) -> tuple[int, ...]:
    first = next(tensors_of(task.batch(1)[0]), torch.empty(1))
    return tuple(first.shape[1:])


def _name(loss: object) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))
