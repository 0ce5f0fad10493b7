"""The workload of a run: rows, model, loss and metrics, from a dataset or from the user's task.

Built on the host; the job moves it to its device. Never chooses a device or an optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from epochtop.engine.data import load
from epochtop.engine.data.dataset import OnProgress, Preparation, PreparedDataset, Rows, no_progress
from epochtop.engine.data.permutation import MOST_LISTED_ROWS
from epochtop.engine.device import generators
from epochtop.engine.device.row_types import as_input, rows_tensor
from epochtop.engine.models import build, summary
from epochtop.engine.models.checked_rows import IGNORED, CheckedRows, LabelRange, label_range
from epochtop.engine.models.copies import deep_copy
from epochtop.engine.models.nested import mapped, rows_first, tensors_of
from epochtop.engine.models.set_metric import MetricOfAllRows
from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.step.batches import DataShard, FullBatch, move
from epochtop.engine.step.losses import LossWeight, criterion, labeled_cross_entropy, loss_weight
from epochtop.engine.step.metrics import EvalMetrics, Metrics, TaskMetrics
from epochtop.engine.step.several_targets import SeveralLabels, SeveralNumbers
from epochtop.engine.step.step import Criterion
from epochtop.engine.tasks.errors.tracebacks import TaskError, definition, explain_user_error
from epochtop.engine.tasks.loader import LoadedTask, load_recorded, parse_task
from epochtop.engine.tasks.loss_module import module_of, modules_of
from epochtop.engine.tasks.task import Part, Task
from epochtop.engine.tasks.traits import BatchWatch, TaskTraits
from epochtop.engine.tasks.trial import evaluates, needs_all_rows, trains_on

Examples = Rows | Dataset[Any]
CHANGES_ROWS = "your task changes its input in place; every batch is a copy, so your rows stay as they are"
MOST_COPIED = 1 << 28
"""Bytes of the largest batch that is copied before steps are timed."""
PARTS: dict[Part, str] = {"train": "training", "validation": "validation", "test": "test"}
"""Parts of a task, and how people call their rows."""


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
    traits: TaskTraits = TaskTraits()  # noqa: RUF009 - frozen
    """What the trial of the task showed."""
    likely_labels: LabelRange | None = None
    """The labels that the task's outputs suggest, if its labels are class numbers."""
    task_record: TaskRecord | None = None
    """The code of the task; None for a dataset."""
    notes: tuple[str, ...] = ()
    """Decisions made while the data were prepared, for people."""
    loading_s: float = 0.0
    """How long the task took to load; 0 for a dataset."""
    _trials: dict[int, bool] = field(default_factory=dict, repr=False, compare=False)
    """Whether the model trains on a number of rows, as tried so far."""

    @property
    def preparation(self) -> Preparation | None:
        """How the rows were prepared; None for a task, which prepares its own."""
        return self.split.preparation if self.split else None

    @property
    def problem(self) -> str:
        """What a dataset's labels are: `classification`, `multi-label` or `regression`; empty for text and for a task."""
        problem = self.split.preparation.problem if self.split is not None else "auto"
        return "" if problem == "auto" else problem

    @property
    def bytes(self) -> int:
        """Size of all rows, without those of a Dataset, whose size is unknown."""
        return sum(part.bytes for part in (self.train, self.validation, self.test) if isinstance(part, Rows))

    @property
    def memory_bytes(self) -> int:
        """Memory of all rows on the host, without those of a Dataset and of memory-mapped files."""
        return sum(part.memory_bytes for part in (self.train, self.validation, self.test) if isinstance(part, Rows))

    def rows_per_epoch(self, spec: RunSpec) -> int:
        """Training rows without those of a last batch that is dropped. Raises Invalid if every batch is too small."""
        rows, size = len(self.train), spec.batch_size * spec.processes  # type: ignore[arg-type]
        smallest = min(spec.batch_size or rows, max(1, rows // spec.processes))
        if smallest == 1 and not self.trains_on(1, spec):
            raise Invalid(
                "batch_size",
                "the model cannot train on batches of 1 row, for example because of BatchNorm; use 2 rows or more",
            )
        rest = rows % size if size else 0
        if size >= rows or not rest or spec.last_batch == "keep":
            return rows
        part = max(1, rest // spec.processes)
        return rows - rest if spec.last_batch == "drop" or not self.trains_on(part, spec) else rows

    def trains_on(self, rows: int, spec: RunSpec) -> bool:
        """Whether the model takes a training batch of the first `rows` rows. Only a few kinds of models do not."""
        if self.task is None and spec.model != "resnet":
            return True
        if rows not in self._trials:
            self._trials[rows] = self._try(rows, spec)
        return self._trials[rows]

    def _try(self, rows: int, spec: RunSpec) -> bool:
        if self.task is not None:
            return trains_on(self.task, rows)
        assert self.preparation is not None
        try:
            summary.summary_of(spec, self.preparation, self.outputs, rows, self.shape)
        except ValueError:  # BatchNorm refuses a single value per channel
            return False
        return True

    def evaluates(self, rows: int) -> bool:
        """Whether the model of a task evaluates a batch of its first `rows` rows. Only a few kinds of models do not."""
        return self.task is None or evaluates(self.task, rows)

    def untouched(self, device: torch.device) -> AbstractContextManager[None]:
        """Restore the random generators and the state of the user's objects afterwards."""
        return generators.forked(device) if self.task is None else self.task.untouched(device)

    def first(self, rows: int, device: torch.device) -> FullBatch:
        """The first `rows` examples (0 for all) as a batch that every step takes, for measuring."""
        if isinstance(self.train, Rows):
            x, y = (as_input(rows_tensor(array[: rows or None])) for array in (self.train.x, self.train.y))
        else:
            assert self.task is not None
            x, y = self.task.batch(rows or len(self.train))  # type: ignore[arg-type]
        count = min(rows or len(self.train), len(self.train))  # type: ignore[arg-type]
        if (
            self.task is not None
            and device.type == "cpu"
            and sum(part.nbytes for part in tensors_of((x, y))) <= MOST_COPIED
        ):
            x, y = mapped((x, y), Tensor.clone)  # a step may change them in place, although the trial has not
        return FullBatch(move(x, device), move(y, device), count, DataShard(), self.traits.changes_rows)

    def with_copied_rows(self) -> Workload:
        """The same workload for a task that changes its input in place."""
        traits = replace(self.traits, changes_rows=True)
        return replace(self, traits=traits, notes=(*self.notes, CHANGES_ROWS))

    def model(self, spec: RunSpec) -> nn.Module:
        """The model of the task, or a new one with weights drawn from the default generator."""
        if self.task is not None:
            return self.task.model
        assert self.split is not None
        return build.build_model(spec, self.split.preparation, self.outputs, self.shape)

    def copied(self) -> Workload:
        """The same workload for another job: model and loss of a task are copies."""
        if self.task is None:
            return self
        model, loss, modules = self.task.model, self.task.loss, modules_of(self.task)
        if len(modules) == 1:
            model = deep_copy(model, model)
        else:
            model, loss = deep_copy((model, loss), *modules)
        eval_loss = self.eval_loss if len(modules) == 1 else loss
        return replace(self, task=replace(self.task, model=model, loss=loss), eval_loss=eval_loss)

    def criterion(self, spec: RunSpec, device: torch.device) -> Criterion:
        """The training loss, moved to the device if it is a module."""
        if self.task is not None:
            module = module_of(self.task.loss, self.task.model)
            if module is not None:
                module.to(device)
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
        started_at = perf_counter()
        workload = _of_task(spec, load_recorded(spec.task, task_record))
        return replace(workload, loading_s=perf_counter() - started_at)
    split = load.load(spec, on_progress)
    return Workload(
        train=split.train,
        validation=split.validation,
        test=split.test,
        loss=split.preparation.loss,
        eval_loss=criterion(split.preparation.loss),
        metrics=_metrics(split.preparation),
        outputs=split.outputs,
        shape=tuple(split.train.x.shape[1:]),
        classes=split.preparation.classes,
        split=split,
        notes=split.notes,
    )


def _metrics(preparation: Preparation) -> EvalMetrics:
    if not preparation.targets:
        return Metrics(preparation.loss, preparation.outputs, preparation.target_spread)
    if preparation.loss == "binary_cross_entropy":
        return SeveralLabels(preparation.outputs)
    return SeveralNumbers(preparation.target_spreads)


def _of_task(spec: RunSpec, loaded: LoadedTask) -> Workload:
    task, traits = loaded.task, loaded.traits
    file, _ = parse_task(spec.task, must_exist=False)
    try:
        output, changes_rows, with_gradients = _example_output(task)
    except Exception as error:
        raise Invalid("task", explain_user_error(error, file, (task.model, loaded.function))) from error
    try:
        parts = [_checked(task, part, label_range(task.loss, output)) for part in PARTS]
    except ValueError as error:
        raise Invalid("task", f"{definition(loaded.function, file) or file.name}: {error}") from None
    train = parts[0]
    traits = replace(traits, changes_rows=traits.changes_rows or changes_rows, evaluates_with_gradients=with_gradients)
    custom_loss = task.loss is not functional.cross_entropy
    of_all_rows = needs_all_rows(task)
    metrics: EvalMetrics = TaskMetrics(
        {name: MetricOfAllRows(each) if name in of_all_rows else each for name, each in task.metrics.items()}  # type: ignore[arg-type]
    )
    if not task.metrics and not custom_loss and output.ndim == 2:
        metrics = Metrics("cross_entropy", output.shape[1], ignore_index=IGNORED)
    return Workload(
        train=train,
        validation=parts[1],
        test=parts[2],
        loss=_name(task.loss),
        eval_loss=task.loss,
        eval_loss_weight=loss_weight(task.loss),
        metrics=metrics,
        outputs=output.shape[-1] if output.ndim > 1 else 1,
        shape=tuple(train.x.shape[1:]) if isinstance(train, Rows) else _shape(task),
        classes=tuple(task.classes),
        task=task,
        task_record=loaded.record,
        likely_labels=LabelRange(output.shape[1], IGNORED) if output.ndim > 1 else None,
        traits=traits,
        notes=tuple(_notes(task, traits, of_all_rows)),
    )


def _checked(task: Task, part: Part, labels: LabelRange | None) -> Examples:
    """The rows of a part; those of a Dataset are checked when they are read. Raises ValueError for a label out of range."""
    examples, name = task.examples(part), PARTS[part]
    if not isinstance(examples, Rows):
        return CheckedRows(examples, name, labels)
    row = None if labels is None else labels.first_outside(examples.y)
    if labels is not None and row is not None:
        raise ValueError(labels.problem(name, row, examples.y[row]))
    return examples


def _notes(task: Task, traits: TaskTraits, of_all_rows: Sequence[str]) -> Iterator[str]:
    if traits.changes_rows:
        yield CHANGES_ROWS
    if traits.unused:
        yield f"not used by the rows of the trial: {_listing(traits.unused)}; a step skips weights that its batch does not use"
    if "sum" in (getattr(task.loss, "reduction", ""), getattr(task.loss, "keywords", {}).get("reduction")):
        yield "the loss is a sum over the rows of a batch, so losses and the learning rate depend on the batch size; use a mean"
    if traits.evaluates_with_gradients:
        yield "model or loss compute gradients in evaluations too, which takes more memory"
    if of_all_rows:
        yield f"not a mean over rows, so computed for all evaluated rows at once: {_listing(of_all_rows)}"


def _listing(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _example_output(task: Task) -> tuple[Tensor, bool, bool]:
    """The output of a copy of the model for two rows, whether it changed them in place, and whether it needs gradients.

    The output is an empty tensor if the model returns no tensor. Of a nested output, the first tensor with a row per row of
    the batch, else the first.
    """
    rows = min(2, len(task.examples("train")))  # type: ignore[arg-type]
    x, y = task.batch(rows)
    watch = BatchWatch(x)
    output, with_gradients = _evaluated(task, x, y)
    if output is None:
        raise TaskError("the model returns None in evaluation mode; end its forward with `return output`")
    by_row = rows_first(output, rows)
    first = next(tensors_of(output), torch.empty(0)) if by_row is None else by_row
    return first, watch.changed(), with_gradients


def _evaluated(task: Task, x: Any, y: Any) -> tuple[Any, bool]:
    """The output of a copy of the model in evaluation mode, and whether it or the loss computes gradients."""
    with task.untouched(torch.device("cpu")), torch.random.fork_rng():
        model = deep_copy(task.model, task.model).eval()
        for gradients in (False, True):
            with suppress(Exception), torch.set_grad_enabled(gradients):  # the first evaluation explains it
                output = model(x)
                task.loss(output, y)
                return mapped(output, Tensor.detach), gradients
        with torch.no_grad():
            return model(x), False


def _may_ignore(train: Examples) -> bool:
    """Whether some labels may be ignored. The labels of a Dataset, and those of very many rows, are not checked."""
    return not isinstance(train, Rows) or len(train) > MOST_LISTED_ROWS or bool((train.y == IGNORED).any())


def _shape(task: Task) -> tuple[int, ...]:
    first = next(tensors_of(task.batch(1)[0]), torch.empty(1))
    return tuple(first.shape[1:])


def _name(loss: object) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))
